# The payload of the KVM probe: what a kernel does in its first moments, each step in a 32-byte slot so that the monitor can
# skip one that failed. A step reports by writing a byte to port 0x10; the loop asks port 0x14 for its next count.
# Loaded at 0x10000 and entered in flat 32-bit protected mode with paging off.
.equ BASE, 0x10000
.text
.code32
start:                              # step 0: long mode, 64 bytes
    mov $0x20, %eax                 # CR4.PAE
    mov %eax, %cr4
    mov $0x1000, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx           # EFER
    rdmsr
    or $0x100, %eax                 # EFER.LME
    wrmsr
    mov $0x80000001, %eax           # CR0.PG | CR0.PE
    mov %eax, %cr0
    ljmp $0x08, $(BASE + long - start)
.code64
long:
    mov $64, %al
    out %al, $0x10
    .org 0x40, 0x90                 # step 1: a counted loop, until the count is 0
count:
    in $0x14, %eax
    test %eax, %eax
    jz 2f
1:  dec %eax
    jnz 1b
    jmp count
2:  mov $1, %al
    out %al, $0x10
    .org 0x60, 0x90                 # step 2: an exception through the IDT
    mov $0x8000, %esp
    xor %ebx, %ebx
    ud2
    mov %ebx, %eax
    out %al, $0x10
    .org 0x80, 0x90                 # step 3: a trap through the IDT
    mov $0x8000, %esp
    xor %ebx, %ebx
    int3
    mov %ebx, %eax
    out %al, $0x10
    .org 0xa0, 0x90                 # step 4: the atomic every x86-64 kernel patches in
    xor %eax, %eax
    xor %edx, %edx
    lea 1(%rax), %ebx
    mov %ebx, %ecx
    mov $0x5000, %edi
    lock cmpxchg16b (%rdi)
    sete %al
    out %al, $0x10
    .org 0xc0, 0x90                 # end
    hlt
    .org 0xe0, 0x90                 # vector 6, #UD: step over ud2
    mov $6, %bl
    addq $2, (%rsp)
    iretq
    .org 0xf0, 0x90                 # vector 3, #BP
    mov $3, %bl
    iretq
