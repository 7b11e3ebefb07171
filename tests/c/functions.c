// Functions: several levels, narrow parameters and results, early returns, void, those that the compiler must not inline.
static u8 low(u64 v) { return v; }
static s8 low_signed(u64 v) { return v; }
static _Bool odd(u32 v) { return v & 1; }
static _Bool any(u64 v) { return v; }
static inline s16 sum3(s16 a, s8 b, u8 c) { return a + b + c; }
static __attribute__((noinline)) u32 mix(u32 a, u32 b) { a ^= b << 5 | b >> 27; return a * 2654435761u; }
static __attribute__((always_inline)) s64 clamp(s64 v, s64 from, s64 to) { if (v < from) return from; if (v > to) return to; return v; }
static __attribute__((noinline)) s64 steps(u64 n) { s64 c = 0; for (int i = 0; i < 20; i++) { if (n <= 1) return c; n = n & 1 ? n * 3 + 1 : n / 2; c++; } return -c; }
static void put(u64 *to, u64 what) { if (!what) return; *to = what; }
static u64 nothing(void) { return 0; }
static int level3(int v) { return v > 0 ? v * 3 : -v; }
static int level2(int v) { return level3(v + 1) + level3(v - 1); }
static int level1(int v) { return level2(v) - level2(-v); }
static u64 run(struct io *p)
{
    p->out[0] = low(p->in[0]); p->out[1] = low_signed(p->in[0]); p->out[2] = odd(p->in[1]); p->out[3] = any(p->in[1] & 0xff00); p->out[4] = sum3(p->in[0], p->in[1], p->in[2]);
    p->out[5] = mix(p->in[0], p->in[1]); p->out[6] = mix(mix(1, 2), p->in[2]); p->out[7] = clamp(p->in[3], -5, 5); p->out[8] = clamp(p->in[4], p->in[5], 1000000); p->out[9] = steps(p->in[6] & 0xff);
    put(&p->out[10], p->in[7]); p->out[11] = nothing() + level1(p->in[0]); p->out[12] = low(low_signed(p->in[0]) - 1); p->out[13] = any(nothing());
    return mix(low(p->in[3]), odd(p->in[4]));
}
