// GNU's builtins that become instructions or constants.
static u64 run(struct io *p)
{
    u64 v = p->in[0]; u32 w = p->in[1]; struct { u8 a[7]; u32 b; } x = { { 1, 2, 3 }, p->in[2] }, y;
    p->out[0] = __builtin_bswap16(v); p->out[1] = __builtin_bswap32(v); p->out[2] = __builtin_bswap64(v); p->out[3] = __builtin_popcount(w); p->out[4] = __builtin_popcountll(v); p->out[5] = __builtin_ffs(w); p->out[6] = __builtin_ffsll(v);
    p->out[7] = __builtin_clz(w | 1); p->out[8] = __builtin_clzll(v | 1); p->out[9] = __builtin_ctz(w | 1 << 31); p->out[10] = __builtin_ctzll(v | 1ull << 63); p->out[11] = __builtin_parity(w); p->out[12] = __builtin_expect(w > 5, 1);
    __builtin_memset(&y, 0xa5, sizeof(y)); p->out[13] = y.b; __builtin_memcpy(&y, &x, sizeof(x)); p->out[14] = y.b + y.a[2]; p->out[15] = __builtin_memcmp(&x, &y, 7) == 0; y.a[3] = 5; p->out[16] = __builtin_memcmp(x.a, y.a, 7) < 0;
    p->out[17] = __builtin_constant_p(5) + __builtin_types_compatible_p(typeof(w), unsigned int) * 2 + __builtin_types_compatible_p(int, long) * 4; p->out[18] = __builtin_offsetof(struct io, out[3]); p->out[19] = __builtin_choose_expr(1, 7, "x");
    p->out[20] = _Generic(w, u32: 1, default: 2) + _Generic(v + w, u64: 10, default: 20) + _Generic('a', int: 100, char: 200); p->out[21] = __builtin_strlen("hello"); p->out[22] = __alignof__(u64) * 10 + sizeof(x);
    if (v == 12345 && !v) __builtin_unreachable();
    return __builtin_bswap32(w) ^ p->out[4];
}
