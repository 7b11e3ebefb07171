// strlen, strcmp, strncmp, memcmp, strchr and their like, on local arrays, literals and map values.
static const char word[16] = "hello";
static u64 run(struct io *p)
{
    char a[16] = "help", b[16] = "hello", c[8]; int i = p->in[0] & 7;
    a[i] = 'a' + (p->in[1] & 15); c[0] = 'h'; c[1] = p->in[2] & 1 ? 'e' : 0; c[2] = 0;
    p->out[0] = __builtin_strlen(a); p->out[1] = strlen("four") + __builtin_strlen(word); p->out[2] = strlen(c); p->out[3] = strcmp(b, word) == 0; p->out[4] = __builtin_strcmp(a, b) < 0; p->out[5] = strcmp(a, "help") == 0;
    p->out[6] = strncmp(a, b, 3) == 0; p->out[7] = __builtin_strncmp(a, "hello", 4) > 0; p->out[8] = memcmp(b, word, 6) == 0; p->out[9] = __builtin_memcmp(a, b, 4) > 0; p->out[10] = strncmp(c, "h", 2) == 0; p->out[11] = strcmp("", c) < 0;
    p->out[12] = __builtin_object_size(a, 0); p->out[13] = strncmp(a, b, 0); p->out[14] = !strcmp(word, "hello"); p->out[15] = strlen(&b[2]); p->out[16] = strlen(b + i % 5);
    return strcmp(c, "he") == 0;
}
