// Loops: for, while, do; break and continue through nesting; comma in the head; counters of several types, upwards and downwards.
static u64 run(struct io *p)
{
    u64 sum = 0, n = p->in[0] & 15;
    for (int i = 0; i < 10; i++) sum += i; p->out[0] = sum;
    for (u32 i = 0; i < n && i < 16; i++) { if (i == 3) continue; if (i == 9) break; sum = sum * 3 + i; } p->out[1] = sum;
    for (int i = 0, j = 10; i < j; i++, j--) sum ^= i * j; p->out[2] = sum;
    int k = 12; while (k--) { if (k & 1) continue; sum += k << 2; if (k < 4) break; } p->out[3] = sum; p->out[4] = k;
    u8 b = 250; do { sum++; b++; } while (b); p->out[5] = sum; do { if (sum & 1) { sum += 3; continue; } sum -= 5; } while (0); p->out[6] = sum;
    for (int i = 0; i < 6; i++) for (int j = i; j < 6; j++) { if (j == 4) break; for (int m = 0; m < 2; m++) { if (m == (i & 1)) continue; sum += i * j + m; } } p->out[7] = sum;
    for (s8 i = -3; i <= 3; i++) sum += i * i; p->out[8] = sum; for (long i = 7; i > 0; i >>= 1) sum = sum << 1 | (i & 1); p->out[9] = sum;
    int found = -1; for (int i = 0; i < 8; i++) if (p->in[i] > 1000) { found = i; break; } p->out[10] = found;
    for (;;) { if (sum > 100) break; sum += 40; if (sum == 7) continue; break; } p->out[11] = sum;
#pragma unroll
    for (int i = 0; i < 4; i++) p->out[12 + i] = p->in[i] >> i;
    return sum;
}
