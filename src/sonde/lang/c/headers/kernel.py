"""What kernel headers define besides types: macros, numbers, and small inline functions; and what libc's define that programs use.

Values are those of the kernel's user interface, and of internals that have been the same since 4.9; what differs between kernels is asked of
BTF (`DEPENDENT`). Both ways of one machine: `__arch(x86, arm64)`.
"""

from __future__ import annotations

from ... import constants
from . import Dependent, Inline, parse_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....spec.target import Target
    from ..macros import Definition

# Attributes and annotations, which mean little or nothing to a program.
_WORDS = """
#define NULL ((void *)0)
#define true 1
#define false 0
#define offsetof(type, member) __builtin_offsetof(type, member)
#define offsetofend(type, member) (__builtin_offsetof(type, member) + sizeof(((type *)0)->member))
#define sizeof_field(type, member) sizeof(((type *)0)->member)
#define FIELD_SIZEOF(type, member) sizeof(((type *)0)->member)
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - __builtin_offsetof(type, member)))
#define list_entry(ptr, type, member) container_of(ptr, type, member)
#define hlist_entry(ptr, type, member) container_of(ptr, type, member)
#define rb_entry(ptr, type, member) container_of(ptr, type, member)
#define list_first_entry(ptr, type, member) list_entry((ptr)->next, type, member)
#define list_last_entry(ptr, type, member) list_entry((ptr)->prev, type, member)
#define list_next_entry(pos, member) list_entry((pos)->member.next, typeof(*(pos)), member)
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define barrier() asm volatile("" : : : "memory")
#define barrier_data(ptr) asm volatile("" : : "r"(ptr) : "memory")
#define READ_ONCE(x) (*(const volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, value) (*(volatile typeof(x) *)&(x) = (value))
#define ACCESS_ONCE(x) (*(volatile typeof(x) *)&(x))
#define BUILD_BUG_ON(e) ((void)sizeof(char[1 - 2 * !!(e)]))
#define WARN_ON(x) (!!(x))
#define WARN_ON_ONCE(x) (!!(x))
#define __user __attribute__((btf_type_tag("user")))
#define __percpu __attribute__((btf_type_tag("percpu")))
#define __rcu __attribute__((btf_type_tag("rcu")))
#define __kernel
#define __iomem
#define __force
#define __bitwise
#define __nocast
#define __safe
#define __private
#define __must_check
#define __init
#define __exit
#define __read_mostly
#define __visible
#define __latent_entropy
#define __designated_init
#define __no_randomize_layout
#define __randomize_layout
#define __extension__
#define asmlinkage
#define notrace
#define __acquires(x)
#define __releases(x)
#define __must_hold(x)
#define EXPORT_SYMBOL(x)
#define EXPORT_SYMBOL_GPL(x)
#define MODULE_LICENSE(x)
#define __always_inline inline __attribute__((always_inline))
#define __inline inline
#define noinline __attribute__((noinline))
#define __packed __attribute__((packed))
#define __aligned(x) __attribute__((aligned(x)))
#define __maybe_unused __attribute__((unused))
#define __always_unused __attribute__((unused))
#define __used __attribute__((used))
#define __weak __attribute__((weak))
#define __cold __attribute__((cold))
#define __pure __attribute__((pure))
#define __attribute_const__ __attribute__((const))
#define __section(x) __attribute__((section(x)))
#define ____cacheline_aligned
#define ____cacheline_aligned_in_smp
#define fallthrough __attribute__((fallthrough))
#define __stringify_1(x...) #x
#define __stringify(x...) __stringify_1(x)
#define __same_type(a, b) __builtin_types_compatible_p(typeof(a), typeof(b))
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
#define IS_BUILTIN(option) __is_defined(option)
#define IS_MODULE(option) __is_defined(option##_MODULE)
#define IS_ENABLED(option) (IS_BUILTIN(option) || IS_MODULE(option))
#define IS_REACHABLE(option) IS_ENABLED(option)
#define __is_defined(x) ___is_defined(x)
#define ___is_defined(value) ____is_defined(__is_defined_##value)
#define ____is_defined(junk) __is_defined_second(junk 1, 0)
#define __is_defined_second(a, b, ...) b
#define __is_defined_1 0,
#define __init_or_module
#define DECLARE_BITMAP(name, bits) unsigned long name[BITS_TO_LONGS(bits)]
#define INADDR_ANY 0
#define INADDR_LOOPBACK 0x7f000001
"""

# Arithmetic.
_ARITHMETIC = """
#define min(a, b) ({ typeof(a) __min_a = (a); typeof(b) __min_b = (b); __min_a < __min_b ? __min_a : __min_b; })
#define max(a, b) ({ typeof(a) __max_a = (a); typeof(b) __max_b = (b); __max_a > __max_b ? __max_a : __max_b; })
#define min_t(type, a, b) ({ type __min_a = (a); type __min_b = (b); __min_a < __min_b ? __min_a : __min_b; })
#define max_t(type, a, b) ({ type __max_a = (a); type __max_b = (b); __max_a > __max_b ? __max_a : __max_b; })
#define min3(a, b, c) min(min(a, b), c)
#define max3(a, b, c) max(max(a, b), c)
#define clamp(x, low, high) min((typeof(x))max(x, low), high)
#define clamp_t(type, x, low, high) min_t(type, max_t(type, x, low), high)
#define swap(a, b) do { typeof(a) __swap = (a); (a) = (b); (b) = __swap; } while (0)
#define abs(x) ({ typeof(x) __abs = (x); __abs < 0 ? -__abs : __abs; })
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define DIV_ROUND_UP(n, d) (((n) + (d) - 1) / (d))
#define DIV_ROUND_UP_ULL(n, d) DIV_ROUND_UP((unsigned long long)(n), d)
#define DIV_ROUND_CLOSEST(n, d) (((n) + (d) / 2) / (d))
#define roundup(x, y) ((((x) + ((y) - 1)) / (y)) * (y))
#define rounddown(x, y) ((x) - (x) % (y))
#define round_up(x, y) ((((x) - 1) | ((typeof(x))((y) - 1))) + 1)
#define round_down(x, y) ((x) & ~((typeof(x))((y) - 1)))
#define ALIGN(x, a) round_up(x, (typeof(x))(a))
#define ALIGN_DOWN(x, a) round_down(x, (typeof(x))(a))
#define IS_ALIGNED(x, a) (((x) & ((typeof(x))(a) - 1)) == 0)
#define PTR_ALIGN(p, a) ((typeof(p))ALIGN((unsigned long)(p), (a)))
#define BIT(n) (1UL << (n))
#define BIT_ULL(n) (1ULL << (n))
#define BIT_MASK(n) (1UL << ((n) % 64))
#define BIT_WORD(n) ((n) / 64)
#define GENMASK(high, low) ((~0UL << (low)) & (~0UL >> (63 - (high))))
#define GENMASK_ULL(high, low) ((~0ULL << (low)) & (~0ULL >> (63 - (high))))
#define BITS_PER_BYTE 8
#define BITS_PER_LONG 64
#define BITS_PER_LONG_LONG 64
#define BITS_TO_LONGS(n) DIV_ROUND_UP(n, 64)
#define test_bit(n, addr) (1UL & (((const unsigned long *)(addr))[(n) / 64] >> ((n) & 63)))
#define lower_32_bits(n) ((unsigned int)((n) & 0xffffffff))
#define upper_32_bits(n) ((unsigned int)(((n) >> 16) >> 16))
#define is_power_of_2(n) ((n) != 0 && ((n) & ((n) - 1)) == 0)
#define ilog2(n) (63 - __builtin_clzll(n))
#define order_base_2(n) ((n) > 1 ? ilog2((n) - 1) + 1 : 0)
#define fls(n) ((n) ? 32 - __builtin_clz(n) : 0)
#define fls64(n) ((n) ? 64 - __builtin_clzll(n) : 0)
#define fls_long(n) fls64(n)
#define __fls(n) (63 - __builtin_clzll(n))
#define __ffs(n) __builtin_ctzll(n)
#define hweight32(n) __builtin_popcount(n)
#define hweight64(n) __builtin_popcountll(n)
#define roundup_pow_of_two(n) ((n) <= 1 ? 1UL : 1UL << (64 - __builtin_clzll((n) - 1)))
#define rounddown_pow_of_two(n) (1UL << (63 - __builtin_clzll(n)))
#define do_div(n, base) ({ unsigned int __base = (base); unsigned int __rem = (n) % __base; (n) = (n) / __base; __rem; })
#define U8_MAX 255
#define U16_MAX 65535
#define U32_MAX 0xffffffffU
#define U64_MAX 0xffffffffffffffffULL
#define S8_MAX 127
#define S16_MAX 32767
#define S32_MAX 0x7fffffff
#define S64_MAX 0x7fffffffffffffffLL
#define MAX_ERRNO 4095
#define IS_ERR_VALUE(x) ((unsigned long)(void *)(x) >= (unsigned long)-MAX_ERRNO)
#define IS_ERR(ptr) IS_ERR_VALUE((unsigned long)(ptr))
#define IS_ERR_OR_NULL(ptr) (!(ptr) || IS_ERR(ptr))
#define PTR_ERR(ptr) ((long)(ptr))
#define ERR_PTR(error) ((void *)(long)(error))
#define PTR_ERR_OR_ZERO(ptr) (IS_ERR(ptr) ? PTR_ERR(ptr) : 0)
#define htons(x) __builtin_bswap16(x)
#define ntohs(x) __builtin_bswap16(x)
#define htonl(x) __builtin_bswap32(x)
#define ntohl(x) __builtin_bswap32(x)
"""

# Small functions of the kernel that read members, as macros: they take pointers of any space, as the members they read do.
_READERS = """
#define atomic_read(v) ((v)->counter)
#define atomic64_read(v) ((v)->counter)
#define atomic_long_read(v) ((v)->counter)
#define refcount_read(r) ((r)->refs.counter)
#define kref_read(k) ((k)->refcount.refs.counter)
#define rcu_dereference(p) (p)
#define rcu_access_pointer(p) (p)
#define rcu_dereference_raw(p) (p)
#define rcu_read_lock() ((void)0)
#define rcu_read_unlock() ((void)0)
#define ktime_to_ns(t) (t)
#define ns_to_ktime(t) (t)
#define file_inode(f) ((f)->f_inode)
#define file_dentry(f) ((f)->f_path.dentry)
#define d_inode(d) ((d)->d_inode)
#define d_really_is_negative(d) ((d)->d_inode == NULL)
#define i_uid_read(inode) ((inode)->i_uid.val)
#define task_pid_nr(t) ((t)->pid)
#define task_tgid_nr(t) ((t)->tgid)
#define same_thread_group(a, b) ((a)->signal == (b)->signal)
#define thread_group_leader(t) ((t)->exit_signal >= 0)
#define skb_headlen(skb) ((skb)->len - (skb)->data_len)
#define skb_end_pointer(skb) ((skb)->head + (skb)->end)
#define skb_shinfo(skb) ((struct skb_shared_info *)skb_end_pointer(skb))
#define skb_is_nonlinear(skb) ((skb)->data_len)
#define skb_transport_header(skb) ((skb)->head + (skb)->transport_header)
#define skb_network_header(skb) ((skb)->head + (skb)->network_header)
#define skb_mac_header(skb) ((skb)->head + (skb)->mac_header)
#define skb_transport_header_was_set(skb) ((skb)->transport_header != (typeof((skb)->transport_header))~0U)
#define skb_mac_header_was_set(skb) ((skb)->mac_header != (typeof((skb)->mac_header))~0U)
#define skb_get_queue_mapping(skb) ((skb)->queue_mapping)
#define skb_rx_queue_recorded(skb) ((skb)->queue_mapping != 0)
#define skb_get_rx_queue(skb) ((skb)->queue_mapping - 1)
#define tcp_hdr(skb) ((struct tcphdr *)skb_transport_header(skb))
#define udp_hdr(skb) ((struct udphdr *)skb_transport_header(skb))
#define icmp_hdr(skb) ((struct icmphdr *)skb_transport_header(skb))
#define ip_hdr(skb) ((struct iphdr *)skb_network_header(skb))
#define ipv6_hdr(skb) ((struct ipv6hdr *)skb_network_header(skb))
#define eth_hdr(skb) ((struct ethhdr *)skb_mac_header(skb))
#define tcp_hdrlen(skb) (tcp_hdr(skb)->doff * 4)
#define ip_hdrlen(skb) (ip_hdr(skb)->ihl * 4)
#define TCP_SKB_CB(skb) ((struct tcp_skb_cb *)&((skb)->cb[0]))
#define IPCB(skb) ((struct inet_skb_parm *)&((skb)->cb[0]))
#define inet_sk(sk) ((struct inet_sock *)(sk))
#define inet_csk(sk) ((struct inet_connection_sock *)(sk))
#define tcp_sk(sk) ((struct tcp_sock *)(sk))
#define udp_sk(sk) ((struct udp_sock *)(sk))
#define unix_sk(sk) ((struct unix_sock *)(sk))
#define raw_sk(sk) ((struct raw_sock *)(sk))
#define sctp_sk(sk) ((struct sctp_sock *)(sk))
#define inet_rsk(rq) ((struct inet_request_sock *)(rq))
#define tcp_rsk(rq) ((struct tcp_request_sock *)(rq))
#define inet_twsk(sk) ((struct inet_timewait_sock *)(sk))
#define tcp_twsk(sk) ((struct tcp_timewait_sock *)(sk))
#define inet6_sk(sk) (((struct inet_sock *)(sk))->pinet6)
#define sock_net(sk) ((sk)->__sk_common.skc_net.net)
#define dev_net(dev) ((dev)->nd_net.net)
#define read_pnet(pnet) ((pnet)->net)
#define SOCKET_I(inode) (&container_of(inode, struct socket_alloc, vfs_inode)->socket)
#define SOCK_INODE(sock) (&container_of(sock, struct socket_alloc, socket)->vfs_inode)
#define bio_op(bio) ((bio)->bi_opf & REQ_OP_MASK)
#define req_op(rq) ((rq)->cmd_flags & REQ_OP_MASK)
#define op_is_write(op) ((op) & 1)
#define rq_data_dir(rq) (op_is_write(req_op(rq)) ? WRITE : READ)
#define bio_data_dir(bio) (op_is_write(bio_op(bio)) ? WRITE : READ)
#define blk_rq_pos(rq) ((rq)->__sector)
#define blk_rq_bytes(rq) ((rq)->__data_len)
#define blk_rq_sectors(rq) (blk_rq_bytes(rq) >> 9)
#define MINORBITS 20
#define MINORMASK ((1U << MINORBITS) - 1)
#define MAJOR(dev) ((unsigned int)((dev) >> MINORBITS))
#define MINOR(dev) ((unsigned int)((dev) & MINORMASK))
#define MKDEV(major, minor) (((major) << MINORBITS) | (minor))
#define S_ISLNK(m) (((m) & S_IFMT) == S_IFLNK)
#define S_ISREG(m) (((m) & S_IFMT) == S_IFREG)
#define S_ISDIR(m) (((m) & S_IFMT) == S_IFDIR)
#define S_ISCHR(m) (((m) & S_IFMT) == S_IFCHR)
#define S_ISBLK(m) (((m) & S_IFMT) == S_IFBLK)
#define S_ISFIFO(m) (((m) & S_IFMT) == S_IFIFO)
#define S_ISSOCK(m) (((m) & S_IFMT) == S_IFSOCK)
"""

# Numbers that are not plain, or that differ between machines.
_VALUES = """
#define __arch(x86, arm64) x86
#define NSEC_PER_SEC 1000000000L
#define NSEC_PER_MSEC 1000000L
#define NSEC_PER_USEC 1000L
#define USEC_PER_SEC 1000000L
#define USEC_PER_MSEC 1000L
#define MSEC_PER_SEC 1000L
#define HZ CONFIG_HZ
#define REQ_OP_BITS 8
#define REQ_OP_MASK ((1 << REQ_OP_BITS) - 1)
#define REQ_FLAG_BITS 24
#define O_TMPFILE (020000000 | O_DIRECTORY)
#define O_DIRECTORY __arch(0200000, 040000)
#define O_NOFOLLOW __arch(0400000, 0100000)
#define O_DIRECT __arch(040000, 0200000)
#define O_LARGEFILE __arch(0100000, 0400000)
#define O_NDELAY O_NONBLOCK
#define O_NOATIME 01000000
#define FASYNC 020000
#define S_IRWXUGO 0777
#define S_IALLUGO 07777
#define FMODE_READ 0x1
#define FMODE_WRITE 0x2
#define FMODE_EXEC 0x20
#define FMODE_CREATED 0x100000
#define FMODE_OPENED 0x80000
#define BPF_OBJ_NAME_LEN 16U
#define XDP_PACKET_HEADROOM 256
#define UINTPTR_MAX 0xffffffffffffffffUL
#define SSIZE_MAX 0x7fffffffffffffffL
#define __PAGE_OFFSET_BASE_L4 0xffff888000000000UL
#define __PAGE_OFFSET_BASE_L5 0xff11000000000000UL
#define TASK_NORMAL (TASK_INTERRUPTIBLE | TASK_UNINTERRUPTIBLE)
#define TASK_KILLABLE (0x0100 | TASK_UNINTERRUPTIBLE)
#define PRIO_TO_NICE(prio) ((prio) - 120)
#define NICE_TO_PRIO(nice) ((nice) + 120)
#define USER_HZ 100
"""

NUMBERS = {
    "READ": 0, "WRITE": 1, "IFNAMSIZ": 16, "SCM_RIGHTS": 1, "SCM_CREDENTIALS": 2, "UUID_SIZE": 16, "DISK_NAME_LEN": 32,
    "PAGE_ALLOC_COSTLY_ORDER": 3, "MAX_RT_PRIO": 100, "DEFAULT_PRIO": 120, "MAX_PRIO": 140, "NICE_WIDTH": 40, "SECTOR_SHIFT": 9,
    "SECTOR_SIZE": 512, "PERF_MAX_STACK_DEPTH": 127, "PERF_MAX_CONTEXTS_PER_STACK": 8, "BPF_TAG_SIZE": 8, "MODULE_NAME_LEN": 56,
    "INET_ADDRSTRLEN": 16, "INET6_ADDRSTRLEN": 48, "XATTR_NAME_MAX": 255, "MAX_NICE": 19, "MIN_NICE": -20,
    "IPV6_VERSION": 6, "TCP_MSS_DEFAULT": 536, "SG_CHAIN": 1, "SG_END": 2, "PT_REGS_NR": 21,
    "ETH_ALEN": 6, "ETH_HLEN": 14, "ETH_ZLEN": 60, "ETH_DATA_LEN": 1500, "ETH_FRAME_LEN": 1514, "ETH_FCS_LEN": 4, "VLAN_HLEN": 4,
    "ETH_P_LOOP": 0x60, "ETH_P_IP": 0x800, "ETH_P_ARP": 0x806, "ETH_P_RARP": 0x8035, "ETH_P_8021Q": 0x8100, "ETH_P_IPX": 0x8137,
    "ETH_P_IPV6": 0x86DD, "ETH_P_PAUSE": 0x8808, "ETH_P_MPLS_UC": 0x8847, "ETH_P_MPLS_MC": 0x8848, "ETH_P_PPP_SES": 0x8864,
    "ETH_P_8021AD": 0x88A8, "ETH_P_LLDP": 0x88CC, "ETH_P_1588": 0x88F7, "ETH_P_ALL": 3, "ETH_P_802_3_MIN": 0x600,
    "ARPHRD_ETHER": 1, "ARPHRD_LOOPBACK": 772, "TCPHDR_FIN": 1, "TCPHDR_SYN": 2, "TCPHDR_RST": 4, "TCPHDR_PSH": 8, "TCPHDR_ACK": 16,
    "TCPHDR_URG": 32, "TCPHDR_ECE": 64, "TCPHDR_CWR": 128, "IP_DF": 0x4000, "IP_MF": 0x2000, "IP_CE": 0x8000, "IP_OFFSET": 0x1FFF,
    "TC_ACT_UNSPEC": -1, "TC_ACT_OK": 0, "TC_ACT_RECLASSIFY": 1, "TC_ACT_SHOT": 2, "TC_ACT_PIPE": 3, "TC_ACT_STOLEN": 4,
    "TC_ACT_QUEUED": 5, "TC_ACT_REPEAT": 6, "TC_ACT_REDIRECT": 7, "TC_ACT_TRAP": 8,
    "SO_DEBUG": 1, "SO_REUSEADDR": 2, "SO_TYPE": 3, "SO_ERROR": 4, "SO_DONTROUTE": 5, "SO_BROADCAST": 6, "SO_SNDBUF": 7,
    "SO_RCVBUF": 8, "SO_KEEPALIVE": 9, "SO_LINGER": 13, "SO_REUSEPORT": 15, "SO_BINDTODEVICE": 25, "SO_MARK": 36,
    "SOL_IP": 0, "SOL_TCP": 6, "SOL_UDP": 17, "SOL_IPV6": 41, "IP_TRANSPARENT": 19, "IP_FREEBIND": 15, "IP_TOS": 1, "IP_TTL": 2,
    "IP_BIND_ADDRESS_NO_PORT": 24, "IPV6_V6ONLY": 26, "TCP_NODELAY": 1, "TCP_MAXSEG": 2, "TCP_CONGESTION": 13,
    "VM_READ": 1, "VM_WRITE": 2, "VM_EXEC": 4, "VM_SHARED": 8, "PROT_READ": 1, "PROT_WRITE": 2, "PROT_EXEC": 4, "PROT_NONE": 0,
    "MAP_SHARED": 1, "MAP_PRIVATE": 2, "MAP_FIXED": 0x10, "MAP_ANONYMOUS": 0x20,
    "S_IRWXU": 0o700, "S_IRUSR": 0o400, "S_IWUSR": 0o200, "S_IXUSR": 0o100, "S_IRWXG": 0o70, "S_IRGRP": 0o40, "S_IWGRP": 0o20,
    "S_IXGRP": 0o10, "S_IRWXO": 7, "S_IROTH": 4, "S_IWOTH": 2, "S_IXOTH": 1, "S_ISUID": 0o4000, "S_ISGID": 0o2000, "S_ISVTX": 0o1000,
    "SEEK_SET": 0, "SEEK_CUR": 1, "SEEK_END": 2, "STDIN_FILENO": 0, "STDOUT_FILENO": 1, "STDERR_FILENO": 2,
    "MS_RDONLY": 1, "MS_NOSUID": 2, "MS_NODEV": 4, "MS_NOEXEC": 8, "MS_REMOUNT": 32, "MS_BIND": 4096, "MS_MOVE": 8192, "MS_REC": 16384,
    "PF_IDLE": 2, "PF_WQ_WORKER": 0x20, "PF_MEMALLOC": 0x800, "FUTEX_WAIT": 0, "FUTEX_WAKE": 1, "FUTEX_PRIVATE_FLAG": 128,
    "CAP_LAST_CAP": 40, "CAP_OPT_NONE": 0, "CAP_OPT_NOAUDIT": 2,
    "DT_UNKNOWN": 0, "DT_FIFO": 1, "DT_CHR": 2, "DT_DIR": 4, "DT_BLK": 6, "DT_REG": 8, "DT_LNK": 10, "DT_SOCK": 12,
}  # fmt: skip

# Members that are macros. Headers of sockets and addresses bring them in (`net_group`).
_COMMON_MEMBERS = {
    "sk": (
        "__sk_common",
        "node nulls_node refcnt tx_queue_mapping rx_queue_mapping hash portpair num dport addrpair daddr rcv_saddr family state reuse "
        "reuseport ipv6only net_refcnt bound_dev_if bind_node prot net v6_daddr v6_rcv_saddr cookie incoming_cpu flags",
    ),
    "inet": ("sk.__sk_common", "daddr rcv_saddr dport num"),
    "tw": (
        "__tw_common",
        "family state reuse reuseport ipv6only bound_dev_if node nulls_node bind_node refcnt hash prot net daddr rcv_saddr dport num "
        "cookie v6_daddr v6_rcv_saddr",
    ),
    "rsk": ("__req_common", "refcnt hash window_clamp rcv_wnd"),
}
_OTHER_MEMBERS = """
#define s6_addr in6_u.u6_addr8
#define s6_addr16 in6_u.u6_addr16
#define s6_addr32 in6_u.u6_addr32
#define ir_loc_addr req.__req_common.skc_rcv_saddr
#define ir_rmt_addr req.__req_common.skc_daddr
#define ir_num req.__req_common.skc_num
#define ir_rmt_port req.__req_common.skc_dport
#define ir_v6_rmt_addr req.__req_common.skc_v6_daddr
#define ir_v6_loc_addr req.__req_common.skc_v6_rcv_saddr
#define ir_iif req.__req_common.skc_bound_dev_if
#define ireq_net req.__req_common.skc_net
#define ireq_state req.__req_common.skc_state
#define ireq_family req.__req_common.skc_family
"""

_STATIC = "static inline __attribute__((always_inline)) "
_FUNCTIONS = {
    "div_u64": "unsigned long long div_u64(unsigned long long a, unsigned int b) { return a / b; }",
    "div64_u64": "unsigned long long div64_u64(unsigned long long a, unsigned long long b) { return a / b; }",
    "mul_u64_u32_shr": "unsigned long long mul_u64_u32_shr(unsigned long long a, unsigned int b, unsigned int shift) "
    "{ return (unsigned long long)(((unsigned __int128)a * b) >> shift); }",
    "sg_is_chain": "int sg_is_chain(struct scatterlist *sg) { return sg->page_link & SG_CHAIN; }",
    "sg_is_last": "int sg_is_last(struct scatterlist *sg) { return sg->page_link & SG_END; }",
    "sg_chain_ptr": "struct scatterlist *sg_chain_ptr(struct scatterlist *sg) "
    "{ return (struct scatterlist *)(sg->page_link & ~(unsigned long)(SG_CHAIN | SG_END)); }",
    "ipv6_addr_v4mapped": "int ipv6_addr_v4mapped(const struct in6_addr *a) "
    "{ return !(a->in6_u.u6_addr32[0] | a->in6_u.u6_addr32[1]) && a->in6_u.u6_addr32[2] == __builtin_bswap32(0xffff); }",
    "list_empty": "int list_empty(const struct list_head *head) { return head->next == head; }",
}


def _byte_order() -> str:
    """The conversions of include/linux/byteorder: cpu_to_be16, be32_to_cpup, __le64_to_cpu …"""
    lines: list[str] = []
    for bits in (16, 32, 64):
        lines.append(f"#define swab{bits}(x) __builtin_bswap{bits}(x)")
        lines.append(f"#define __swab{bits}(x) __builtin_bswap{bits}(x)")
        for order in ("be", "le"):
            value = f"__builtin_bswap{bits}(%s)" if order == "be" else f"((__u{bits})(%s))"
            for prefix in ("", "__"):
                lines.append(f"#define {prefix}cpu_to_{order}{bits}(x) " + value % "x")
                lines.append(f"#define {prefix}{order}{bits}_to_cpu(x) " + value % "x")
                lines.append(f"#define {prefix}{order}{bits}_to_cpup(p) " + value % "*(p)")
    for name, bits in (("htons", 16), ("ntohs", 16), ("htonl", 32), ("ntohl", 32)):
        lines.append(f"#define __constant_{name}(x) __builtin_bswap{bits}(x)")
        lines.append(f"#define __{name}(x) __builtin_bswap{bits}(x)")
    return "\n" + "\n".join(lines)


def _requests() -> str:
    """The flags of block requests: their bits are enumerators."""
    names = "FAILFAST_DEV FAILFAST_TRANSPORT FAILFAST_DRIVER SYNC META PRIO NOMERGE IDLE INTEGRITY FUA PREFLUSH RAHEAD BACKGROUND NOWAIT"
    return "".join(f"\n#define REQ_{name} (1ULL << __REQ_{name})" for name in names.split())


def make_members() -> dict[str, Definition]:
    """Return the macros that are names of members."""
    table: dict[str, Definition] = dict(parse_table(_OTHER_MEMBERS))
    for prefix, (path, names) in _COMMON_MEMBERS.items():
        table.update({f"{prefix}_{name}": f" {path}.skc_{name}" for name in names.split()})
    table.update(sk_rxhash=" sk_hash", rsk_refcnt=" __req_common.skc_refcnt")
    return table


def make_table() -> dict[str, Definition]:
    """Return all macros and functions of the kernel's headers, by name."""
    table: dict[str, Definition] = {}
    for numbers in (
        constants.SOCKET, constants.SCHED, constants.ERRNO, constants.SIGNAL, constants.FCNTL, constants.STAT, constants.IN,
        constants.LIMITS, constants.STDINT, NUMBERS,
    ):  # fmt: skip
        table.update({name: f" {value}" if value >= 0 else f" ({value})" for name, value in numbers.items()})
    table.update(_wide())
    for text in (_WORDS, _ARITHMETIC, _READERS, _VALUES, _byte_order(), _requests()):
        table.update(parse_table(text))
    table.update({name: Inline("linux", _STATIC + text) for name, text in _FUNCTIONS.items()})
    table.update({name: Dependent(make) for name, make in _DEPENDENT.items()})
    return table


def _wide() -> dict[str, str]:
    """Limits whose type matters."""
    return {
        "UINT_MAX": " 4294967295U", "ULONG_MAX": " 18446744073709551615UL", "ULLONG_MAX": " 18446744073709551615ULL",
        "LONG_MAX": " 9223372036854775807L", "LLONG_MAX": " 9223372036854775807LL", "INT_MIN": " (-2147483647 - 1)",
        "LONG_MIN": " (-9223372036854775807L - 1)", "LLONG_MIN": " (-9223372036854775807LL - 1)", "UINT32_MAX": " 4294967295U",
        "INT32_MIN": " (-2147483647 - 1)", "INT64_MIN": " (-9223372036854775807L - 1)", "INT64_MAX": " 9223372036854775807L",
        "UINT64_MAX": " 18446744073709551615UL", "SIZE_MAX": " 18446744073709551615UL",
    }  # fmt: skip


# what BTF decides -----------------------------------------------------------------------------------------------------


def _has_member(target: Target, struct: str, member: str) -> bool:
    found = target.btf().get_struct(struct)
    return found is not None and found.get_member(member) is not None


def _inline_name_length(target: Target) -> str:
    """DNAME_INLINE_LEN: the size of struct dentry's own buffer."""
    from ....debuginfo.ctype import sizeof

    dentry = target.btf().get_struct("dentry")
    for path in (("d_iname",), ("d_shortname", "string")):
        ctype = dentry
        for name in path:
            field = ctype.get_member(name) if ctype is not None and hasattr(ctype, "get_member") else None
            ctype = field.member.ctype if field is not None else None  # type: ignore[assignment]
        if ctype is not None:
            return f" {sizeof(ctype)}"
    return " 32"


def _inline_name(target: Target) -> str | None:
    """d_iname: a member up to 6.14, then a macro."""
    return None if _has_member(target, "dentry", "d_iname") else " d_shortname.string"


_DEPENDENT = {"DNAME_INLINE_LEN": _inline_name_length, "d_iname": _inline_name}
