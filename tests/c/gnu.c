// Statement expressions, typeof, ?: without a middle, __auto_type, macros' favourites, labels at ends, case ranges, empty structs' friends.
#pragma GCC diagnostic ignored "-Wall"
static inline u32 twice(u32 v) { return ({ typeof(v) t = v; t += t; t; }); }
static u64 run(struct io *p)
{
    __auto_type a = p->in[0]; typeof(a) b = a + 1; typeof(&a) q = &b; __typeof__(p->out[0]) c = ({ int z = 3; z++; z; });
    p->out[0] = ({ u8 t = a; t; }) + ({ s8 t = a; t; }); p->out[1] = a ?: 5; p->out[2] = (a & 1) ?: (b & 6) ?: 9; p->out[3] = *q; p->out[4] = twice(b); p->out[5] = c;
    p->out[6] = ({ typeof(a) x_ = a, y_ = b ^ 0xff; x_ < y_ ? x_ : y_; }); p->out[7] = ({ if (a & 2) c++; c; }); p->out[8] = ({ u64 s = 0; for (int i = 0; i < 4; i++) { if (i == 2) continue; s += p->in[i]; } s; });
    struct { int v; } s = ({ struct { int v; } t = { 5 }; (typeof(t)){ t.v + 1 }; }).v ? (typeof(s)){ 3 } : (typeof(s)){ 4 }; p->out[9] = s.v;
    p->out[10] = (__extension__ 3) + __extension__ ({ 4; }); p->out[11] = sizeof(typeof(p->in)); p->out[12] = ({ goto skip; 1; }); p->out[13] = 1;
skip:
    p->out[14] = ({ ; 5; }) + ((void)0, 6);
    { typedef u8 u32; u32 narrow = a; p->out[15] = narrow; }
    u32 u64_ = 5; int u8 = 3; p->out[16] = u8 * u64_;
    return c;
}
