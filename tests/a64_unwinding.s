// Who looks at the stack: a backtrace and an exception through functions with frames, and functions that are leapt out of before. Writes the addresses that were seen.
// SIGNED: whether functions sign their return addresses; 0: no, 1: first of all, 2: behind another instruction.
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
        .macro enter bytes
        .if SIGNED > 1
        nop
        .endif
        .if SIGNED
        paciasp
        .cfi_negate_ra_state
        .endif
        sub     sp, sp, #\bytes
        .cfi_def_cfa_offset \bytes
        stp     x29, x30, [sp]
        .cfi_offset 29, -\bytes
        .cfi_offset 30, -\bytes + 8
        mov     x29, sp
        .endm
        .macro leave bytes
        ldp     x29, x30, [sp]
        add     sp, sp, #\bytes
        .cfi_def_cfa_offset 0
        .cfi_restore 29
        .cfi_restore 30
        .if SIGNED
        autiasp
        .cfi_negate_ra_state
        .endif
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
        bl      walks
        bl      catches
        bl      walks
        bl      leaps
        bl      walks
        bl      catches
        mov     x0, #1
        at      x1, list
        mov     x2, #2048
        mov     x8, #64
        svc     #0
        mov     x0, #0
        mov     x8, #94
        svc     #0
end _start

function walks
        enter   32
        at      x0, mode
        str     xzr, [x0]
        bl      one
        leave   32
end walks

function one                             // with a frame that holds what others have left
        enter   1504
        bl      two
        leave   1504
end one

function two
        enter   48
        bl      three
        leave   48
end two

function three
        enter   16
        at      x9, mode
        ldr     x9, [x9]
        cmp     x9, #1
        b.eq    1f
        b.hi    2f
        adr     x0, note
        mov     x1, #0
        bl      backtrace
        b       3f
1:      at      x0, exception
        bl      raise
2:      at      x9, back
        ldp     x10, x11, [x9]
        mov     sp, x10
        ldr     x29, [x9, #16]
        br      x11
3:      leave   16
end three

function backtrace
        b       _Unwind_Backtrace
end backtrace

function raise
        b       _Unwind_RaiseException
end raise

function note
        enter   16
        bl      _Unwind_GetIP
        bl      keep
        mov     w0, #0
        leave   16
end note

function keep
        at      x9, next
        ldr     x10, [x9]
        at      x11, list
        str     x0, [x11, x10]
        add     x10, x10, #8
        str     x10, [x9]
        ret
end keep

function catches
        .cfi_personality 0x1b, personality
        enter   64
        at      x0, mode
        mov     x1, #1
        str     x1, [x0]
        bl      one
        mov     x0, #999                 // not reached
        bl      keep
landing:
        mov     x0, #77
        bl      keep
        leave   64
end catches

function personality                     // version, actions, class, exception, context
        enter   16
        tbnz    w1, #0, 1f
        tbz     w1, #2, 2f
        mov     x0, x4
        adr     x1, landing
        bl      _Unwind_SetIP
        mov     w0, #7                   // install it
        b       3f
1:      mov     w0, #6                   // here is a handler
        b       3f
2:      mov     w0, #8
3:      leave   16
end personality

function leaps                           // the same functions begin at many depths, and never return
        enter   48
        stp     x19, x20, [sp, #16]
        .cfi_offset 19, -32
        .cfi_offset 20, -24
        mov     x19, #40
1:      at      x0, mode
        mov     x1, #2
        str     x1, [x0]
        at      x9, back
        mov     x10, sp
        adr     x11, 2f
        stp     x10, x11, [x9]
        str     x29, [x9, #16]
        lsl     x0, x19, #5
        bl      deeper
2:      subs    x19, x19, #1
        b.ne    1b
        ldp     x19, x20, [sp, #16]
        leave   48
end leaps

function deeper
        enter   16
        sub     sp, sp, x0
        bl      two
        mov     x0, #998                 // not reached
        bl      keep
        mov     sp, x29
        leave   16
end deeper

        .data
        .balign 16
exception:
        .quad   0x1234, 0, 0, 0
mode:   .quad   0
next:   .quad   0
back:   .quad   0, 0, 0
        .bss
        .balign 16
list:   .zero   2048
        .section .note.GNU-stack, "", %progbits
