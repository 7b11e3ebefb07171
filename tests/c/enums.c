// Enumerations: values, negative ones, use in switches, arrays and bit-fields; constants of several types.
enum colour { RED, GREEN = 5, BLUE, LAST = BLUE + 3, ALSO = RED }; enum sign { MINUS = -1, PLUS = 1 }; enum big { HUGE_ = 0x7fffffff };
enum { SIZE = LAST / 2, MASK = (1 << SIZE) - 1, CH = 'x', SZ = sizeof(u64) * 3, COND = SIZE > 3 ? 10 : 20 };
static enum colour next(enum colour c) { switch (c) { case RED: return GREEN; case GREEN: return BLUE; case BLUE: return RED; default: return LAST; } }
static u64 run(struct io *p)
{
    enum colour c = p->in[0] & 7; enum sign s = p->in[1] & 1 ? PLUS : MINUS; u8 table[SIZE] = { [RED] = 1, [SIZE - 1] = 2 };
    p->out[0] = next(c); p->out[1] = next(next(RED)); p->out[2] = s; p->out[3] = s < 0; p->out[4] = s * 5; p->out[5] = LAST + MASK * 100 + CH + SZ + COND; p->out[6] = table[p->in[2] & 3]; p->out[7] = sizeof(c) + sizeof(enum big);
    c++; p->out[8] = c; c = (enum colour)300; p->out[9] = c; p->out[10] = c == 300; p->out[11] = -1 < RED; p->out[12] = HUGE_ + 1u; p->out[13] = (u8)c; struct { enum colour k : 4; } b = { p->in[3] }; p->out[14] = b.k;
    return MINUS;
}
