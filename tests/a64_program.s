// A program of many kinds of functions for the tests of aarch64's trampolines: it does everything once, writes `results`, then what lies from `dump_start` to `dump_end`, and ends.
        .equ RSEQ, -64
        .equ THREADS, 4
        .equ ROUNDS, 5000

        .macro function name
        .globl \name
        .type \name, %function
        .balign 16
\name:
        .endm
        .macro end name
        .size \name, . - \name
        .endm
        .macro result register
        ldr     x16, =at
        ldr     x17, [x16]
        str     \register, [x17], #8
        str     x17, [x16]
        .endm

        .text
function _start
        ldr     x0, =tls
        mov     w1, #1
        bl      set_thread
        bl      many_times
        mov     x0, #1
        mov     x1, #20
        mov     x2, #300
        mov     x3, #4000
        mov     x4, #0xc350
        ldr     x5, =600000
        bl      six
        result  x0
        mov     x0, #20
        bl      depth
        result  x0
        mov     x0, #5
        bl      outer
        result  x0
        mov     x0, #6
        bl      pingpong
        result  x0
        bl      look_at_flags
        bl      leap
        bl      with_a_handler
        bl      some_calls
        bl      bad_strings
        bl      in_threads
        b       finish
end _start

// x0: the thread pointer, w1: the number of the CPU that is to be found there
function set_thread
        msr     tpidr_el0, x0
        str     w1, [x0, #RSEQ + 4]
        ret
end set_thread

function work                            // a, string
        lsl     x2, x0, #1
        cmp     x1, #0
        cinc    x0, x2, ne
        ret
end work

function many_times
        stp     x29, x30, [sp, #-32]!
        mov     x29, sp
        stp     x19, x20, [sp, #16]
        mov     x19, #0
        mov     x20, #0
1:      mov     x0, x19
        ldr     x1, =name
        bl      work
        add     x20, x20, x0
        add     x19, x19, #1
        cmp     x19, #1000
        b.ne    1b
        result  x20
        ldp     x19, x20, [sp, #16]
        ldp     x29, x30, [sp], #32
        ret
end many_times

function six
        add     x0, x0, x1
        add     x0, x0, x2
        add     x0, x0, x3
        add     x0, x0, x4
        add     x0, x0, x5
        ret
end six

function depth                           // as many frames as its argument says
        stp     x29, x30, [sp, #-16]!
        mov     x29, sp
        cbz     x0, 1f
        sub     x0, x0, #1
        bl      depth
1:      add     x0, x0, #1
        ldp     x29, x30, [sp], #16
        ret
end depth

function outer                           // jumps to another function, which returns for both
        add     x0, x0, #100
        b       inner
end outer

function inner
        add     x0, x0, #1
        ret
end inner

function pingpong                        // jumps to and fro
        cbz     x0, 1f
        sub     x0, x0, #1
        b       pongping
1:      mov     x0, #77
        ret
end pingpong

function pongping
        cbz     x0, 1f
        sub     x0, x0, #1
        b       pingpong
1:      mov     x0, #78
        ret
end pongping

function flags                           // a < b, as the flags say behind a place that takes a probe
        cmp     x0, x1
        .globl  inside
inside: nop
        cset    x0, lo
        ret
end flags

function look_at_flags
        stp     x29, x30, [sp, #-32]!
        mov     x29, sp
        str     x19, [sp, #16]
        mov     x0, #1
        mov     x1, #2
        bl      flags
        mov     x19, x0
        mov     x0, #2
        mov     x1, #1
        bl      flags
        add     x19, x0, x19, lsl #4
        mov     x0, #3
        mov     x1, #3
        bl      flags
        add     x19, x0, x19, lsl #4
        result  x19
        ldr     x19, [sp, #16]
        ldp     x29, x30, [sp], #32
        ret
end look_at_flags

function leap                            // ten times out of a function that never returns, then once more from a place deeper down
        stp     x29, x30, [sp, #-32]!
        mov     x29, sp
        stp     x19, x20, [sp, #16]
        mov     x19, #10
1:      mov     x20, sp
        adr     x0, 2f
        mov     x1, x20
        bl      leaper
        mov     x19, #999                // not reached
2:      subs    x19, x19, #1
        b.ne    1b
        mov     x0, #3
        bl      depth
        add     x0, x0, x19
        result  x0
        ldp     x19, x20, [sp, #16]
        ldp     x29, x30, [sp], #32
        ret
end leap

function leaper                          // where to go on, with which stack pointer
        stp     x29, x30, [sp, #-48]!
        mov     x29, sp
        mov     sp, x1
        br      x0
end leaper

function with_a_handler                  // SIGUSR1 to itself, whose handler calls a probed function
        stp     x29, x30, [sp, #-16]!
        mov     x0, #10
        ldr     x1, =action
        mov     x2, #0
        mov     x3, #8
        mov     x8, #134                 // rt_sigaction
        svc     #0
        mov     x8, #178
        svc     #0
        mov     x19, x0
        mov     x8, #172
        svc     #0
        mov     x1, x19
        mov     x2, #10
        mov     x8, #131                 // tgkill
        svc     #0
        ldr     x0, =handled
        ldr     x0, [x0]
        result  x0
        ldp     x29, x30, [sp], #16
        ret
end with_a_handler

function handler
        stp     x29, x30, [sp, #-16]!
        mov     x0, #21
        ldr     x1, =name
        bl      work
        ldr     x1, =handled
        str     x0, [x1]
        ldp     x29, x30, [sp], #16
        ret
end handler

function restorer
        mov     x8, #139
        svc     #0
end restorer

function call_by_number                  // a number in x0, as syscall(2) has it
        mov     x8, x0
        mov     x0, x1
        mov     x1, x2
        mov     x2, x3
        svc     #0
        ret
end call_by_number

function get_parent
        mov     x8, #173
        svc     #0
        ret
end get_parent

function some_calls
        stp     x29, x30, [sp, #-32]!
        mov     x29, sp
        stp     x19, x20, [sp, #16]
        mov     x19, #10
1:      bl      get_parent
        cmp     x0, #0
        cset    x20, gt
        subs    x19, x19, #1
        b.ne    1b
        result  x20
        mov     x19, #5
2:      mov     x0, #57                  // close(-1)
        mov     x1, #-1
        bl      call_by_number
        subs    x19, x19, #1
        b.ne    2b
        result  x0
        ldp     x19, x20, [sp, #16]
        ldp     x29, x30, [sp], #32
        ret
end some_calls

function bad_strings
        stp     x29, x30, [sp, #-32]!
        mov     x29, sp
        str     x19, [sp, #16]
        mov     x19, #10
1:      mov     x0, #3
        ldr     x1, =0x123456789000
        add     x1, x1, x19
        bl      takes
        subs    x19, x19, #1
        b.ne    1b
        result  x0
        ldr     x19, [sp, #16]
        ldp     x29, x30, [sp], #32
        ret
end bad_strings

function takes                           // a number and the address of a string, which it does not look at
        add     x0, x0, #4
        ret
end takes

function in_threads
        stp     x29, x30, [sp, #-32]!
        mov     x29, sp
        stp     x19, x20, [sp, #16]
        mov     x0, #0                   // once before, so that what scripts keep of it is there
        ldr     x1, =name
        bl      shared
        mov     x19, #0
1:      ldr     x0, =0x3d0f00            // CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, PARENT_SETTID, CHILD_CLEARTID
        ldr     x1, =stacks
        add     x2, x19, #1
        add     x1, x1, x2, lsl #16
        ldr     x2, =scratch
        ldr     x3, =tls + 256
        add     x3, x3, x19, lsl #8
        mov     x4, x2
        mov     x8, #220
        svc     #0
        cbz     x0, thread
        add     x19, x19, #1
        cmp     x19, #THREADS
        b.ne    1b
        ldr     x19, =done
2:      ldar    w0, [x19]
        cmp     w0, #THREADS
        b.eq    3f
        mov     x8, #124                 // sched_yield
        svc     #0
        b       2b
3:      ldr     x0, =sums
        ldp     x1, x2, [x0]
        ldp     x3, x4, [x0, #16]
        add     x1, x1, x2
        add     x1, x1, x3
        add     x1, x1, x4
        result  x1
        ldp     x19, x20, [sp, #16]
        ldp     x29, x30, [sp], #32
        ret
thread:
        mrs     x20, tpidr_el0
        and     w1, w19, #1              // two CPUs for all of them
        add     w1, w1, #2
        str     w1, [x20, #RSEQ + 4]
        mov     x21, #0
        mov     x22, #0
4:      mov     x0, x21
        ldr     x1, =name
        bl      shared
        add     x22, x22, x0
        add     x21, x21, #1
        ldr     x0, =ROUNDS
        cmp     x21, x0
        b.ne    4b
        ldr     x0, =sums
        str     x22, [x0, x19, lsl #3]
        ldr     x1, =done
5:      ldaxr   w2, [x1]
        add     w2, w2, #1
        stlxr   w3, w2, [x1]
        cbnz    w3, 5b
        mov     x0, #0
        mov     x8, #93
        svc     #0
end in_threads

function shared                          // what threads call
        stp     x29, x30, [sp, #-16]!
        mov     x29, sp
        add     x0, x0, #1
        ldp     x29, x30, [sp], #16
        ret
end shared

function finish
        ldr     x1, =results
        ldr     x2, =results_end
        sub     x2, x2, x1
        bl      write_all
        ldr     x0, =dump_start
        ldp     x1, x2, [x0]
        sub     x2, x2, x1
        bl      write_all
        mov     x0, #0
        mov     x8, #94
        svc     #0
end finish

function write_all                       // x1, x2 bytes
        cbz     x2, 1f
        mov     x0, #1
        mov     x8, #64
        svc     #0
        cmp     x0, #0
        b.le    1f
        add     x1, x1, x0
        sub     x2, x2, x0
        b       write_all
1:      ret
end write_all

        .data
        .balign 16
name:   .asciz  "a name that is long enough to cross several words"
        .balign 16
        .globl  dump_start, results
at:     .quad   results
dump_start:
        .quad   0, 0
handled:
        .quad   0
done:   .quad   0
scratch:
        .quad   0
action: .quad   handler, 0x04000000, restorer, 0  // sa_handler, SA_RESTORER, sa_restorer, sa_mask
        .balign 16
results:
        .zero   256
results_end:
        .zero   64
sums:   .zero   64
        .balign 256
        .zero   192                      // what lies before a thread pointer
tls:    .zero   256 * 8

        .bss
        .balign 65536
stacks: .zero   65536 * 6
