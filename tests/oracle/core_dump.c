/* core_dump OBJECT BTF: let libbpf relocate each program of an object for the types in a BTF file; print the code that it would load. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <bpf/libbpf.h>

static int say_errors(enum libbpf_print_level level, const char *format, va_list values)
{
    return level == LIBBPF_WARN ? vfprintf(stderr, format, values) : 0;
}

static int print_code(struct bpf_program *program, struct bpf_prog_load_opts *options, long cookie)
{
    const unsigned char *code = (const void *)bpf_program__insns(program);
    printf("%s ", bpf_program__section_name(program));
    for (size_t i = 0; i < bpf_program__insn_cnt(program) * 8; i++)
        printf("%02x", code[i]);
    printf("\n");
    return -1; /* it is not loaded */
}

int main(int count, char **arguments)
{
    LIBBPF_OPTS(libbpf_prog_handler_opts, handler, .prog_prepare_load_fn = print_code);
    LIBBPF_OPTS(bpf_object_open_opts, options, .btf_custom_path = arguments[2]);
    libbpf_set_print(say_errors);
    libbpf_register_prog_handler("core+", BPF_PROG_TYPE_SOCKET_FILTER, 0, &handler);
    for (int wanted = 0, programs = 1; wanted < programs; wanted++) {
        struct bpf_object *object = bpf_object__open_file(arguments[1], &options);
        struct bpf_program *program;
        if (count != 3 || !object)
            return 1;
        programs = 0;
        bpf_object__for_each_program(program, object)
            bpf_program__set_autoload(program, programs++ == wanted);
        bpf_object__load(object);
        bpf_object__close(object);
    }
    return 0;
}
