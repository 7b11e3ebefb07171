// Switches: falling through, ranges, default in the middle, nested, over several types, with loops around.
static int kind(s32 c)
{
    switch (c) { case '0' ... '9': return 1; case 'a' ... 'f': case 'A' ... 'F': return 2; case -5: return 3; case ' ': case '\t': break; default: return 0; }
    return 4;
}
static u64 run(struct io *p)
{
    u64 r = 0;
    switch (p->in[0] & 7) { case 0: r = 1; break; case 1: r = 2; case 2: r += 10; break; default: r = 99; case 5: r++; break; case 6: { int z = r + 7; r = z; } }
    p->out[0] = r;
    switch ((s8)p->in[1]) { case -1: r += 5; break; case 0: r += 6; break; case 127: r += 7; break; case -128: r += 8; } p->out[1] = r;
    switch (p->in[2]) { case 0xffffffffffffffff: r ^= 1; break; case 1ull << 63: r ^= 2; break; case 0 ... 100: r ^= 4; break; } p->out[2] = r;
    for (int i = 0; i < 8; i++) switch (i) { case 2: continue; case 4: r += 3; break; case 5: if (r & 1) break; r *= 2; default: r += i; } p->out[3] = r;
    switch (p->in[3] & 3) { case 0: switch (p->in[4] & 1) { case 0: r++; break; default: r--; } break; case 1: r += 50; } p->out[4] = r;
    p->out[5] = kind('7'); p->out[6] = kind('B'); p->out[7] = kind((u8)p->in[5]); p->out[8] = kind(-5); p->out[9] = kind(' ');
    switch (p->in[6] & 1) default: r += 2;
    switch ((_Bool)p->in[7]) { case 1: r += 1000; }
    return r;
}
