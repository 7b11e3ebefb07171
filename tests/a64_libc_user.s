// A program that has the C library do many kinds of things, and prints what came out.
        .macro function name
        .globl \name
        .type \name, %function
        .balign 16
\name:
        .cfi_startproc
        .endm
        .macro end name
        .cfi_endproc
        .size \name, . - \name
        .endm
        .macro begin bytes
        stp     x29, x30, [sp, #-\bytes]!
        .cfi_def_cfa_offset \bytes
        .cfi_offset 29, -\bytes
        .cfi_offset 30, -\bytes + 8
        mov     x29, sp
        .endm
        .macro finish bytes
        ldp     x29, x30, [sp], #\bytes
        ret
        .endm
        .macro at register, name
        adrp    \register, \name
        add     \register, \register, :lo12:\name
        .endm

        .text
function _start
        .cfi_undefined 30
        mov     x29, #0
        mov     x30, #0
        mov     x5, x0
        ldr     x1, [sp]
        add     x2, sp, #8
        mov     x6, sp
        at      x0, main
        mov     x3, #0
        mov     x4, #0
        bl      __libc_start_main
        bl      abort
end _start

function main
        begin   32
        bl      sorting
        bl      numbers
        bl      memory
        bl      matching
        bl      leaping
        at      x0, bye
        mov     x1, #0
        mov     x2, #0
        bl      __cxa_atexit
        mov     x0, #0
        finish  32
end main

function bye
        begin   16
        at      x0, bye_text
        bl      puts
        finish  16
end bye

function compare
        ldr     w2, [x0]
        ldr     w3, [x1]
        cmp     w2, w3
        cset    w0, gt
        csinv   w0, w0, wzr, ge
        ret
end compare

function sorting
        begin   48
        stp     x19, x20, [sp, #16]
        at      x19, table
        mov     x20, #0
        mov     w1, #12345
1:      mov     w2, #20077
        movk    w2, #3, lsl #16
        mul     w1, w1, w2
        add     w1, w1, #77
        lsr     w3, w1, #8
        str     w3, [x19, x20, lsl #2]
        add     x20, x20, #1
        cmp     x20, #300
        b.ne    1b
        mov     x0, x19
        mov     x1, #300
        mov     x2, #4
        at      x3, compare
        bl      qsort
        at      x0, sorted
        ldr     w1, [x19]
        ldr     w2, [x19, #600]
        ldr     w3, [x19, #1196]
        bl      printf
        ldp     x19, x20, [sp, #16]
        finish  48
end sorting

function numbers
        begin   48
        stp     d8, d9, [sp, #16]
        at      x0, pi
        mov     x1, #0
        bl      strtod
        fmov    d8, d0
        fmul    d9, d0, d0
        at      x0, floats
        fmov    d1, d9
        fdiv    d2, d8, d9
        mov     x1, #-42
        bl      printf
        fadd    d0, d8, d9
        at      x0, float
        bl      printf
        ldp     d8, d9, [sp, #16]
        finish  48
end numbers

function memory
        begin   48
        stp     x19, x20, [sp, #16]
        str     x21, [sp, #32]
        mov     x19, #1
        mov     x20, #0
1:      mov     x0, x19
        bl      malloc
        mov     x21, x0
        mov     w1, #0x5a
        mov     x2, x19
        bl      memset
        mov     x0, x21
        lsl     x1, x19, #1
        bl      realloc
        ldrb    w1, [x0]
        add     x20, x20, x1
        tst     x19, #6
        b.eq    2f
        bl      free
2:      add     x19, x19, x19, lsr #1
        add     x19, x19, #1
        cmp     x19, #200, lsl #12
        b.lt    1b
        at      x0, sum
        mov     x1, x20
        bl      printf
        ldr     x21, [sp, #32]
        ldp     x19, x20, [sp, #16]
        finish  48
end memory

function matching
        begin   16
        at      x0, expression
        at      x1, pattern
        mov     w2, #1
        bl      regcomp
        at      x0, expression
        at      x1, subject
        mov     x2, #2
        at      x3, table
        mov     w4, #0
        bl      regexec
        at      x4, table
        mov     w1, w0
        ldr     w2, [x4, #8]
        ldr     w3, [x4, #12]
        at      x0, matched
        bl      printf
        at      x0, expression
        bl      regfree
        finish  16
end matching

function leaping
        begin   32
        str     x19, [sp, #16]
        mov     x19, #0
        at      x0, place
        bl      _setjmp
        add     x19, x0, x19
        cmp     w0, #5
        b.ge    1f
        add     w0, w0, #1
        bl      leap
1:      at      x0, leapt
        mov     w1, #5
        bl      printf
        ldr     x19, [sp, #16]
        finish  32
end leaping

function leap
        begin   16
        mov     w1, w0
        at      x0, place
        bl      longjmp
        finish  16
end leap

        .section .rodata
sorted: .asciz  "%d %d %d\n"
pi:     .asciz  "3.14159265358979323846"
floats: .asciz  "%.10f %g %e %ld\n"
float:  .asciz  "%a\n"
sum:    .asciz  "%ld\n"
pattern: .asciz "a([bc]+)(d|e)*f$"
subject: .asciz "xxabccbddef"
matched: .asciz "%d %d %d\n"
leapt:  .asciz  "leapt %d\n"
bye_text: .asciz "bye"
        .bss
        .balign 16
table:  .zero   2048
expression: .zero 256
place:  .zero   512
