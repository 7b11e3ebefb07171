// Arrays: of several dimensions, of structs, initialised in part, by ranges, by strings; indices from both sides.
static const u16 primes[] = { 2, 3, 5, 7, 11, 13, 17, 19 };
static const char names[4][6] = { "read", "write", { 'o', 'p' }, [3] = "close" };
static u64 run(struct io *p)
{
    u32 grid[3][4] = { { 1, 2 }, [2] = { [1] = 7, 8 } };
    u8 bytes[16] = { [0 ... 3] = 1, [8 ... 11] = p->in[0], 5 };
    char text[] = "hello", pad[8] = "ab";
    struct { s16 k; u8 v[3]; } recs[4] = { { 1, { 2, 3 } }, { .v = { [2] = 9 } } };
    u32 i = p->in[1] & 3, j = p->in[2] & 7, sum = 0;
    for (u32 r = 0; r < 3; r++) for (u32 c = 0; c < 4; c++) { grid[r][c] += r * c; sum += grid[r][c]; }
    p->out[0] = sum; p->out[1] = grid[i & 1][j & 3]; p->out[2] = (*(grid + 1))[2]; p->out[3] = *(*(grid + 2) + 1); p->out[4] = bytes[j]; p->out[5] = bytes[12]; p->out[6] = text[i]; p->out[7] = pad[j];
    p->out[8] = primes[j]; p->out[9] = names[i][j & 3]; p->out[10] = recs[i].k; p->out[11] = recs[1].v[i & 1]; p->out[12] = j[primes]; p->out[13] = sizeof(text) + sizeof primes / sizeof *primes * 100;
    u32 (*row)[4] = &grid[1]; p->out[14] = (*row)[3]; row++; p->out[15] = row[0][1]; u8 *q = bytes + 8; p->out[16] = q[-8] + q[1]; p->out[17] = *q++ + *q; p->out[18] = q - bytes; p->out[19] = &bytes[j] - bytes;
    recs[i].v[j & 1] = 200; p->out[20] = recs[i].v[0] + recs[i].v[1] + recs[i].v[2]; bytes[j] += 250; p->out[21] = bytes[j]; p->out[22] = ((u16[]){ 4, 5, 6, 7 })[i]; p->out[23] = "abcdef"[j & 3];
    return names[1][4] + names[2][1] + names[2][2];
}
