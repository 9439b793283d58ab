# The one payload: a script interpreter with its ways in. Assembled into read-only data of the tests, never run on the host.
# Addresses are guest ABI of the tests; the same numbers stand in mod.rs.
#
#   0x0100_0000  this code            0x0110_0000 + 0x1_0000 * APIC id  script of a vCPU
#   0x0003_0000  copy of `trampoline` 0x0120_0000 + 0x1000 * (APIC id + 1)  stack top
#   0x0130_0000  identity page tables
#
# A script is an array of records of four 64-bit words: operation, %r12, %r13, %r14. `emit` sends to COM1.

.set CODE, 0x1000000
.set SCRIPTS, 0x1100000
.set STACKS, 0x1200000
.set TABLES, 0x1300000
.set TRAMPOLINE, 0x30000
.set COM1, 0x3f8
.set EXIT, 0xf4
.set MAILBOX, 0x180000
.set DOORBELL, 0xa18

.balign 16
.globl daxvisor_payload_start
daxvisor_payload_start:
        .long entry64 - daxvisor_payload_start
        .long entry_pvh - daxvisor_payload_start
        .long trampoline - daxvisor_payload_start
        .long trampoline_end - daxvisor_payload_start
        .long real - daxvisor_payload_start
        .long real_end - daxvisor_payload_start

# 64-bit boot protocol: the zero page is in %rsi and stays in %r15.
.code64
entry64:
        movq    %rsi, %r15
        movl    $SCRIPTS, %ebx
        movl    $STACKS + 0x1000, %esp
        jmp     next

# PVH: 32-bit protected mode, start info in %ebx; goes on in long mode with it in %r15.
.code32
entry_pvh:
        cld
        movl    %ebx, %esi
        lgdtl   CODE + (gdt_pointer - daxvisor_payload_start)
        movl    $0x20, %eax             # CR4.PAE
        movl    %eax, %cr4
        movl    $TABLES, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx       # EFER
        xorl    %edx, %edx
        movl    $0x100, %eax            # LME
        wrmsr
        movl    $0x80000011, %eax       # PG, ET, PE
        movl    %eax, %cr0
        ljmpl   $8, $CODE + (entry64 - daxvisor_payload_start)

.balign 8
gdt:    .quad   0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff
gdt_pointer:
        .word   31
        .long   CODE + (gdt - daxvisor_payload_start)

# A started processor: real mode at TRAMPOLINE, where a script copied this.
.code16
trampoline:
        cli
        cld
        lgdtl   %cs:(ap_gdt_pointer - trampoline)
        movl    $0x11, %eax             # ET, PE; caches on
        movl    %eax, %cr0
        ljmpl   $0x18, $TRAMPOLINE + (ap32 - trampoline)
.code32
ap32:
        movl    $0x10, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    $0x20, %eax
        movl    %eax, %cr4
        movl    $TABLES, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx
        xorl    %edx, %edx
        movl    $0x100, %eax
        wrmsr
        movl    $0x80000011, %eax
        movl    %eax, %cr0
        ljmpl   $8, $TRAMPOLINE + (ap64 - trampoline)
.code64
ap64:
        movl    $0xfee00020, %eax       # local APIC id
        movl    (%rax), %eax
        shrl    $24, %eax
        leal    1(%rax), %esp
        shll    $12, %esp
        addl    $STACKS, %esp
        movl    %eax, %ebx
        shll    $16, %ebx
        addl    $SCRIPTS, %ebx
        movl    $CODE + (next - daxvisor_payload_start), %eax
        jmp     *%rax
.balign 8
ap_gdt: .quad   0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff
ap_gdt_pointer:
        .word   31
        .long   TRAMPOLINE + (ap_gdt - trampoline)
trampoline_end:

# The interpreter.
.code64
next:
        movq    (%rbx), %rax
        movq    8(%rbx), %r12
        movq    16(%rbx), %r13
        movq    24(%rbx), %r14
        addq    $32, %rbx
        cmpq    $(operations_end - operations) / 4, %rax
        jae     unknown
        leaq    operations(%rip), %rcx
        movslq  (%rcx,%rax,4), %rax
        addq    %rcx, %rax
        jmp     *%rax
unknown:
        movb    $30, %al
        outb    %al, $EXIT
        jmp     op_spin

.balign 4
operations:
        .long   op_exit - operations    # 0
        .long   op_in - operations      # 1
        .long   op_out - operations     # 2
        .long   op_load - operations    # 3
        .long   op_store - operations   # 4
        .long   op_dump - operations    # 5
        .long   op_cpuid - operations   # 6
        .long   op_boot - operations    # 7
        .long   op_copy - operations    # 8
        .long   op_spin - operations    # 9
        .long   op_fault - operations   # 10
        .long   op_outs - operations    # 11
        .long   op_ins - operations     # 12
        .long   op_wait - operations    # 13
        .long   op_fuzz_ports - operations # 14
        .long   op_fuzz_mmio - operations # 15
        .long   op_halt - operations    # 16
        .long   op_storm - operations   # 17
        .long   op_tables - operations  # 18
        .long   op_state - operations   # 19
        .long   op_rdmsr - operations   # 20
operations_end:

# Sends the low %ecx bytes of %rax.
emit:   movl    $COM1, %edx
1:      outb    %al, %dx
        shrq    $8, %rax
        decl    %ecx
        jnz     1b
        ret

# exit(value)
op_exit:
        movl    %r12d, %eax
        outb    %al, $EXIT
op_spin:
        pause
        jmp     op_spin

op_halt:
        cli
        hlt
        jmp     op_halt

# in(port, size): emits what it read
op_in:
        movl    %r12d, %edx
        xorl    %eax, %eax
        cmpl    $2, %r13d
        jb      1f
        je      2f
        inl     %dx, %eax
        jmp     emitted
1:      inb     %dx, %al
        jmp     emitted
2:      inw     %dx, %ax
emitted:
        movl    %r13d, %ecx
        call    emit
        jmp     next

# out(port, size, value)
op_out:
        movl    %r12d, %edx
        movl    %r14d, %eax
        cmpl    $2, %r13d
        jb      1f
        je      2f
        outl    %eax, %dx
        jmp     next
1:      outb    %al, %dx
        jmp     next
2:      outw    %ax, %dx
        jmp     next

# load(address, size): emits
op_load:
        xorl    %eax, %eax
        cmpl    $2, %r13d
        jb      1f
        je      2f
        cmpl    $8, %r13d
        je      8f
        movl    (%r12), %eax
        jmp     emitted
1:      movb    (%r12), %al
        jmp     emitted
2:      movw    (%r12), %ax
        jmp     emitted
8:      movq    (%r12), %rax
        jmp     emitted

# store(address, size, value)
op_store:
        cmpl    $2, %r13d
        jb      1f
        je      2f
        cmpl    $8, %r13d
        je      8f
        movl    %r14d, (%r12)
        jmp     next
1:      movb    %r14b, (%r12)
        jmp     next
2:      movw    %r14w, (%r12)
        jmp     next
8:      movq    %r14, (%r12)
        jmp     next

# dump(address, length): emits
op_dump:
        movl    $COM1, %edx
        movq    %r12, %rsi
        movq    %r13, %rcx
1:      movb    (%rsi), %al
        outb    %al, %dx
        incq    %rsi
        decq    %rcx
        jnz     1b
        jmp     next

# cpuid(leaf, subleaf, address): stores EAX, EBX, ECX, EDX
op_cpuid:
        movq    %rbx, %rbp
        movl    %r12d, %eax
        movl    %r13d, %ecx
        cpuid
        movl    %eax, (%r14)
        movl    %ebx, 4(%r14)
        movl    %ecx, 8(%r14)
        movl    %edx, 12(%r14)
        movq    %rbp, %rbx
        jmp     next

# rdmsr(register): emits
op_rdmsr:
        movl    %r12d, %ecx
        rdmsr
        shlq    $32, %rdx
        orq     %rdx, %rax
        movl    $8, %ecx
        call    emit
        jmp     next

# boot(): emits the address the boot protocol handed over
op_boot:
        movq    %r15, %rax
        movl    $8, %ecx
        call    emit
        jmp     next

# copy(to, from, length)
op_copy:
        movb    (%r13), %al
        movb    %al, (%r12)
        incq    %r12
        incq    %r13
        decq    %r14
        jnz     op_copy
        jmp     next

# fault(): an exception without an IDT
op_fault:
        leaq    no_idt(%rip), %rax
        lidt    (%rax)
        ud2
no_idt: .word   0
        .quad   0

# outs(port, size, address, and the count in the next record's first word)
op_outs:
        movl    %r12d, %edx
        movq    %r14, %rsi
        movq    (%rbx), %rcx
        addq    $32, %rbx
        cmpl    $2, %r13d
        jb      1f
        je      2f
        rep outsl
        jmp     next
1:      rep outsb
        jmp     next
2:      rep outsw
        jmp     next

# ins: the same
op_ins:
        movl    %r12d, %edx
        movq    %r14, %rdi
        movq    (%rbx), %rcx
        addq    $32, %rbx
        cmpl    $2, %r13d
        jb      1f
        je      2f
        rep insl
        jmp     next
1:      rep insb
        jmp     next
2:      rep insw
        jmp     next

# wait(address, value): until the 32-bit word is value
op_wait:
        pause
        cmpl    %r13d, (%r12)
        jne     op_wait
        jmp     next

# xorshift64 in %r13
random: movq    %r13, %rax
        shlq    $13, %rax
        xorq    %rax, %r13
        movq    %r13, %rax
        shrq    $7, %rax
        xorq    %rax, %r13
        movq    %r13, %rax
        shlq    $17, %rax
        xorq    %rax, %r13
        ret

# fuzz_ports(count, seed): any port but those that end the run
op_fuzz_ports:
        call    random
        movq    %r13, %rdx
        shrq    $20, %rdx
        testl   $1, %r13d
        jz      1f
        andl    $7, %edx                # half of the accesses go where devices are
        leaq    devices(%rip), %rcx
        movzwl  (%rcx,%rdx,2), %edx
        movl    %r13d, %eax
        shrl    $8, %eax
        andl    $7, %eax
        addl    %eax, %edx
1:      movzwl  %dx, %edx
        leal    -0xf0(%rdx), %eax       # test exit
        cmpl    $8, %eax
        jb      3f
        leal    -0x500(%rdx), %eax      # pvpanic
        cmpl    $8, %eax
        jb      3f
        leal    -0x5f8(%rdx), %eax      # sleep and reset
        cmpl    $16, %eax
        jb      3f
        movq    %r13, %rax
        movq    %r13, %rcx
        shrq    $40, %rcx
        andl    $7, %ecx
        jz      10f
        decl    %ecx
        jz      11f
        decl    %ecx
        jz      12f
        decl    %ecx
        jz      13f
        decl    %ecx
        jz      14f
        decl    %ecx
        jz      15f
        decl    %ecx
        movl    $3, %ecx
        jz      16f
        leaq    -64(%rsp), %rdi
        rep insb
        jmp     3f
10:     inb     %dx, %al
        jmp     3f
11:     inw     %dx, %ax
        jmp     3f
12:     inl     %dx, %eax
        jmp     3f
13:     outb    %al, %dx
        jmp     3f
14:     outw    %ax, %dx
        jmp     3f
15:     outl    %eax, %dx
        jmp     3f
16:     leaq    devices(%rip), %rsi
        rep outsb
3:      decq    %r12
        jnz     op_fuzz_ports
        jmp     next
devices: .word  0x3f8, 0xa18, 0x20, 0xa0, 0x40, 0x60, 0x70, 0xcf8

# fuzz_mmio(count, seed, base + log2 of the range)
op_fuzz_mmio:
        call    random
        movl    %r14d, %ecx
        andl    $63, %ecx
        movl    $1, %eax
        shlq    %cl, %rax
        decq    %rax
        movq    %r13, %rsi
        shrq    $9, %rsi
        andq    %rax, %rsi
        movq    %r14, %rax
        andq    $-4096, %rax
        addq    %rax, %rsi
        movq    %r13, %rax
        movq    %r13, %rcx
        shrq    $50, %rcx
        andl    $7, %ecx
        testl   $4, %ecx
        jnz     5f
        andl    $3, %ecx
        jz      10f
        decl    %ecx
        jz      11f
        decl    %ecx
        jz      12f
        movq    (%rsi), %rax
        jmp     3f
10:     movb    (%rsi), %al
        jmp     3f
11:     movw    (%rsi), %ax
        jmp     3f
12:     movl    (%rsi), %eax
        jmp     3f
5:      andl    $3, %ecx
        jz      13f
        decl    %ecx
        jz      14f
        decl    %ecx
        jz      15f
        movq    %rax, (%rsi)
        jmp     3f
13:     movb    %al, (%rsi)
        jmp     3f
14:     movw    %ax, (%rsi)
        jmp     3f
15:     movl    %eax, (%rsi)
3:      decq    %r12
        jnz     op_fuzz_mmio
        jmp     next

# storm(count, seed, template): mailbox calls, each the 96 bytes of the template with one word of noise
op_storm:
        call    random
        movl    $MAILBOX, %edi
        movq    %r14, %rsi
        movl    $12, %ecx
1:      movq    (%rsi), %rax
        movq    %rax, (%rdi)
        addq    $8, %rsi
        addq    $8, %rdi
        decl    %ecx
        jnz     1b
        movq    %r13, %rdi
        shrq    $30, %rdi
        andl    $31, %edi
        movl    %r13d, MAILBOX(,%rdi,4)
        movl    $DOORBELL, %edx
        outl    %eax, %dx
        decq    %r12
        jnz     op_storm
        jmp     next

# tables(): the identity map of the script's maker instead of the boot protocol's
op_tables:
        movl    $TABLES, %eax
        movq    %rax, %cr3
        jmp     next

# state(address): stores CR0, CR3, CR4, RFLAGS, CS, DS, SS as 64-bit words
op_state:
        movq    %cr0, %rax
        movq    %rax, (%r12)
        movq    %cr3, %rax
        movq    %rax, 8(%r12)
        movq    %cr4, %rax
        movq    %rax, 16(%r12)
        pushfq
        popq    24(%r12)
        xorl    %eax, %eax
        movw    %cs, %ax
        movq    %rax, 32(%r12)
        movw    %ds, %ax
        movq    %rax, 40(%r12)
        movw    %ss, %ax
        movq    %rax, 48(%r12)
        jmp     next

# Real mode, on a machine of its own: code at 1000:0000, says hello by string I/O, adds up the words it finds at 2000:0000
# until a zero, stores the sum at 2000:0100 and ends.
.code16
real:
        cli
        cld
        movw    %cs, %ax
        movw    %ax, %ds
        movw    $hello - real, %si
        movw    $hello_end - hello, %cx
        movw    $COM1, %dx
        rep outsb
        movw    $0x2000, %ax
        movw    %ax, %ds
        movw    %ax, %es
        xorw    %si, %si
        xorw    %bx, %bx
1:      lodsw
        addw    %ax, %bx
        testw   %ax, %ax
        jnz     1b
        movw    %bx, 0x100
        movw    $COM1 + 7, %dx          # scratch register
        movb    $0x5a, %al
        outb    %al, %dx
        movw    $0x110, %di
        movw    $4, %cx
        rep insb
        movb    $7, %al
        outb    %al, $EXIT
2:      jmp     2b
hello:  .ascii  "real mode\n"
hello_end:
real_end:
.code64
.globl daxvisor_payload_end
daxvisor_payload_end:
