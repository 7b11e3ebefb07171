// goto: forwards, out of loops, over declarations, backwards with a bound.
static u64 run(struct io *p)
{
    u64 r = 0; int tries = 0;
    if (p->in[0] & 1) goto odd;
    r += 10;
odd:
    r += 1;
    for (int i = 0; i < 5; i++) for (int j = 0; j < 5; j++) { if (((p->in[1] >> i) & 3) == j) { r += i * 10 + j; goto out; } r++; }
    r += 1000;
out:
    p->out[0] = r;
again:
    if (tries < 6) { tries++; r = r * 2 + tries; if (r & 4) goto again; }
    p->out[1] = r; p->out[2] = tries;
    if (p->in[2] > 50) goto fail;
    { int inner = p->in[3]; if (inner < 0) goto fail; r += inner & 7; }
    p->out[3] = r;
    goto done;
fail:
    r = 0 - r;
done: ;
    return r;
}
