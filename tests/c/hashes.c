// What programs do: hashes, histograms' logarithms, fields of headers, saturating counters, bit sets.
static u32 rotate(u32 v, u32 n) { return v << n | v >> (32 - n); }
static u32 jhash(const u32 *k, u32 n, u32 init)
{
    u32 a = 0xdeadbeef + init, b = a, c = a + n;
    for (u32 i = 0; i < 4 && i < n; i++) { a += k[i]; c ^= b; c -= rotate(b, 14); a ^= c; a -= rotate(c, 11); b ^= a; b -= rotate(a, 25); }
    return c;
}
static u64 fnv(u64 v) { u64 h = 14695981039346656037ull; for (int i = 0; i < 8; i++) { h ^= v & 0xff; h *= 1099511628211ull; v >>= 8; } return h; }
static u32 log2u(u32 v) { u32 r, s; r = (v > 0xffff) << 4; v >>= r; s = (v > 0xff) << 3; v >>= s; r |= s; s = (v > 0xf) << 2; v >>= s; r |= s; s = (v > 0x3) << 1; v >>= s; r |= s; return r | v >> 1; }
static u16 checksum(const u16 *w, int n) { u32 s = 0; for (int i = 0; i < n && i < 8; i++) s += w[i]; s = (s >> 16) + (s & 0xffff); s += s >> 16; return ~s; }
static u64 run(struct io *p)
{
    u32 k[4] = { p->in[0], p->in[1], p->in[0] >> 32, p->in[1] >> 32 }; u16 w[8]; u64 set[4] = { 0 };
    p->out[0] = jhash(k, 4, p->in[2]); p->out[1] = jhash(k, p->in[3] & 3, 0); p->out[2] = fnv(p->in[4]); p->out[3] = log2u(p->in[5]); p->out[4] = log2u(p->in[5] >> 32) + 32;
    __builtin_memcpy(w, p->in, 16); p->out[5] = checksum(w, 8); p->out[6] = checksum(w, p->in[6] & 7); for (int i = 0; i < 8; i++) { u8 b = p->in[i]; set[b >> 6] |= 1ull << (b & 63); }
    p->out[7] = set[0]; p->out[8] = set[1]; p->out[9] = set[2]; p->out[10] = set[3]; u8 sat = 250; for (int i = 0; i < 10; i++) sat = sat < 255 ? sat + 1 : 255; p->out[11] = sat; u8 x = 0, lsb = p->in[7];
    for (int i = 0; i < 8; i++) x |= ((lsb >> i) & 1) << (7 - i); p->out[12] = x; u64 best = 0; for (int i = 0; i < 8; i++) best = p->in[i] > best ? p->in[i] : best; p->out[13] = best;
    s64 lo = 0, hi = 8; for (int i = 0; i < 4 && lo < hi; i++) { s64 mid = (lo + hi) / 2; if ((u64)(mid * 5) < (p->in[0] & 63)) lo = mid + 1; else hi = mid; } p->out[14] = lo;
    return rotate(p->in[0], 7);
}
