//! The nested host: QEMU-TCG with nested SVM, for machines whose KVM cannot run an unmodified kernel.
