// Copies, fills and comparisons of a number of bytes that is not constant.
struct both { u32 a; char text[24]; };
static u64 run(struct io *p)
{
    char from[32] = "0123456789abcdefghijklmnopqrstu", to[32] = { 0 }; struct both x = { 1, "some text here" }, y = { 0 }; u32 n = p->in[0] & 31, at = p->in[1] & 7, k = p->in[2] & 15;
    __builtin_memcpy(to, from, n); __builtin_memcpy(&p->out[0], to, 32); __builtin_memset(to + at, 'x', k); __builtin_memcpy(&p->out[4], to, 32); memcpy(&y, &x, k); p->out[8] = y.a; p->out[9] = y.text[3];
    __builtin_memmove(from + at, from, k); __builtin_memcpy(&p->out[10], from, 32); p->out[14] = __builtin_memcmp(from, to, k) == 0; memset(&y, 0, n & 15); p->out[15] = y.a + y.text[3];
    if (n < 20) memcpy(&p->out[16], x.text, n & 15); p->out[19] = memcmp("abcdefghijklmnop", "abcdefgxijklmnop", k) == 0;
    return to[at];
}
