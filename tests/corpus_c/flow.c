/* Loops, goto, switch, short circuit, conditional and comma expressions, statement expressions, nested breaks. */
static int classify(int x)
{
    switch (x) {
    case 0: return 10;
    case 1:
    case 2: x += 5;
    case 3: x *= 2; break;
    case 10 ... 20: return x - 10;
    case -5: return 99;
    default: x = -x;
    }
    return x;
}
static int count(long x) { int n = 0; do { n++; if (n > 20) break; x /= 3; } while (x); return n; }
static int early(int a, int b) { if (a > b) { if (b < 0) return 1; a--; } else if (a == b) return 2; else { b++; } return a + b; }
long test(long *io)
{
    int i = 8, n = 0, m;
    for (m = 0; m < 10; m++) {
        if (m == io[0] % 7)
            continue;
        if (m == 8)
            break;
        n += m;
    }
    io[i++] = n;
    io[i++] = m;
    n = 0;
    while (n < 50) { n += 7; if (n & 1) n++; }
    io[i++] = n;
    io[i++] = classify(io[0] % 4) + classify(io[1] % 30) + classify(-5) + classify(15) + classify(40);
    io[i++] = count(io[0]) + count(io[1]);
    io[i++] = early(io[0], io[1]) + early(io[1], io[0]) + early(3, 3);
    n = 0;
again:
    n++;
    if (n < 5)
        goto again;
    if (io[0] & 1)
        goto out;
    n = 100;
out:
    io[i++] = n;
    n = 0;
    io[i++] = (io[0] & 1) && (n = 5) || (n += 3);
    io[i++] = n;
    io[i++] = (io[0] & 2) ? (n++, n * 2) : (n--, n * 3);
    io[i++] = ({ int k = io[2]; k &= 15; for (int j = 0; j < 3; j++) k += j; k; });
    for (int a = 0; a < 4; a++)
        for (int b = 0; b < 4; b++) {
            if (b > a) break;
            if ((a + b) % 3 == io[3] % 3) continue;
            n += a * b + 1;
        }
    io[i++] = n;
    unsigned char wrap = 250;
    n = 0;
    while (wrap++ && n < 100)
        n++;
    io[i++] = n + wrap;
    int k = 3;
    switch (io[1] & 3) {
        case 0: for (k = 0; k < 3; k++) { case 1: n++; if (n > 1000) break; }
                break;
        case 2: { int inner = 4; n += inner; }
        default: n += 2;
    }
    io[i++] = n + k;
    if (io[0] > 0) if (io[1] > 0) n = 1; else n = 2;
    io[i++] = n;
    io[i++] = !!(io[0] & 4) + !(io[1] & 8 || io[2] & 16);
    int held = io[0];
    asm volatile("" ::: "memory");
    asm volatile("" : "+r"(held));
    asm volatile("" : "=r"(k) : "0"(held));
    io[i++] = held + k;
#pragma unroll
    for (int j = 0; j < 6; j++) { if (j == 2) continue; if (j == 5) break; io[40 + j] = j * io[0]; }
    return i;
}
