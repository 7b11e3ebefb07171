// Comparisons of all widths, logic that stops early, and the operators that yield 0 or 1.
static u64 run(struct io *p)
{
    s8 a = p->in[0]; u8 b = p->in[1]; s32 c = p->in[2]; u32 d = p->in[3]; s64 e = p->in[4]; u64 f = p->in[5];
    int calls = 0;
    u64 r = 0;
    r = r << 1 | (a < b); r = r << 1 | (a > c); r = r << 1 | (c < d); r = r << 1 | (c <= -1); r = r << 1 | (d >= 0x80000000); r = r << 1 | (e < f);
    r = r << 1 | (e < c); r = r << 1 | (e >= d); r = r << 1 | (f == d); r = r << 1 | (a != b); r = r << 1 | !a; r = r << 1 | !!f; r = r << 1 | (a == -1);
    r = r << 1 | (b == 0xff); r = r << 1 | (d == -1); r = r << 1 | (f == -1); r = r << 1 | ((u8)a == b); r = r << 1 | (a < 0 == e < 0);
    if (a && (calls++, b > 3) && (calls += 10, c)) calls += 100;
    if (a > 5 || (calls += 1000, b) || (calls += 10000)) calls += 100000;
    p->out[0] = calls; p->out[1] = a && b; p->out[2] = c || d; p->out[3] = (a || b) && (c || d); p->out[4] = a ? b ? 1 : 2 : c ? 3 : 4;
    p->out[5] = a ?: b; p->out[6] = c ?: 77; p->out[7] = (a < b) + (b < c) + (c < a); p->out[8] = a < b < c; p->out[9] = (a && 1) == 1;
    return r;
}
