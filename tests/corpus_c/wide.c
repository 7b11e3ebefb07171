/* 128-bit integers. */
typedef unsigned __int128 u128;
typedef __int128 s128;
static u128 make(u64 high, u64 low) { return (u128)high << 64 | low; }
struct address { u128 saddr; u16 port; };
long test(long *io)
{
    int i = 8;
    u128 a = make(io[0], io[1]), b = make(io[2], io[3]);
    s128 c = (s128)io[0] * io[1], d = -(s128)io[2];
    io[i++] = a + b;
    io[i++] = (a + b) >> 64;
    io[i++] = (a - b) >> 64;
    io[i++] = a - b;
    io[i++] = (a * b) >> 64;
    io[i++] = a * b;
    io[i++] = c >> 64;
    io[i++] = c;
    io[i++] = d >> 64;
    io[i++] = a < b;
    io[i++] = a <= b;
    io[i++] = a > b;
    io[i++] = a >= a;
    io[i++] = c < d;
    io[i++] = c >= d;
    io[i++] = a == b;
    io[i++] = a != b;
    io[i++] = (a & b) >> 64 ^ (a | b) ^ (a ^ b);
    io[i++] = (~a) >> 64;
    io[i++] = !a + !!b;
    io[i++] = (a << 3) >> 64;
    io[i++] = (a << (io[0] & 127)) >> 64;
    io[i++] = a << (io[0] & 127);
    io[i++] = a >> (io[0] & 127);
    io[i++] = (c >> (io[1] & 127)) >> 64;
    io[i++] = c >> (io[1] & 127);
    io[i++] = a ? 3 : 4;
    struct address k = {};
    k.saddr = a;
    k.port = 80;
    struct address l = k;
    io[i++] = l.saddr == a;
    l.saddr++;
    io[i++] = l.saddr - k.saddr;
    a += b;
    io[i++] = a;
    io[i++] = (u32)a + (u8)b;
    io[i++] = (s128)(s8)io[0] >> 64;
    io[i++] = sizeof(a);
    u128 e = io[0] & 1 ? a : b;
    io[i++] = e >> 64;
    return i;
}
