/* Conversions, promotions, division and shifts of all widths. */
static s8 narrow(long x) { return x; }
static u8 narrow_u(long x) { return x; }
static s16 half(int x) { return x * 3; }
static _Bool truth(long x) { return x; }
static u32 mixed(u8 a, s8 b) { return a + b; }
long test(long *io)
{
    int i = 8;
    s32 a = io[0], b = io[1];
    u32 ua = io[0], ub = io[1];
    s8 c = io[2];
    u8 d = io[2];
    u16 e = io[3];
    io[i++] = a + b;
    io[i++] = ua + ub;
    io[i++] = a < b;
    io[i++] = ua < ub;
    io[i++] = a < (long)ub;
    io[i++] = ua > -1;
    io[i++] = c + d;
    io[i++] = c < d;
    io[i++] = (u8)(c + 1) == (u8)(d + 1);
    io[i++] = -e;
    io[i++] = ~d;
    io[i++] = !c + !d;
    io[i++] = c << 3;
    io[i++] = c >> 2;
    io[i++] = d >> 2;
    io[i++] = (s64)a << 20;
    io[i++] = io[0] >> (io[1] & 63);
    io[i++] = (u64)io[0] >> (io[1] & 63);
    io[i++] = a >> (b & 31);
    io[i++] = ua >> (b & 31);
    io[i++] = ub ? ua / ub : 0;
    io[i++] = b && !(b == -1) ? a / b : 1;
    io[i++] = b && !(b == -1) ? a % b : 1;
    io[i++] = io[1] && io[1] != -1 ? io[0] / io[1] : 2;
    io[i++] = io[1] ? (u64)io[0] % (u64)io[1] : 2;
    io[i++] = narrow(io[0]) + narrow_u(io[1]) + half(a) + truth(io[2]) + truth(io[3] & 0);
    io[i++] = mixed(io[0], io[1]);
    c += 100;
    io[i++] = c;
    d -= 200;
    io[i++] = d;
    e *= 7;
    io[i++] = e;
    c = d = e;
    io[i++] = c + d;
    io[i++] = c++ + ++d;
    io[i++] = c-- - --d;
    io[i++] = sizeof(c + d) + sizeof(e) + sizeof(io[0]);
    io[i++] = (c ^ d) & 0x1ff | e;
    io[i++] = -2147483647 - 1 - a;
    io[i++] = 4294967295u + a;
    io[i++] = 0x7fffffffffffffff + io[3];
    io[i++] = 'a' + '\xff' + '\n';
    io[i++] = (_Bool)0x100 + (_Bool)(io[0] & 0x100);
    io[i++] = a ? b : ub;
    io[i++] = (a, b);
    io[i++] = a ?: b;
    return i;
}
