// SPDX-License-Identifier: GPL-2.0
// Services for the sockets of a control group: a ClusterIP becomes a backend when a socket names it, and a backend
// becomes the ClusterIP again when a socket asks who it speaks to. No packet is ever changed.
//
// A prototype: IPv4, and IPv4 in sockets of IPv6 (::ffff:a.b.c.d), which is what Go and Java open.

#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define UNKNOWN 0
#define TRANSLATED 1
#define NO_BACKEND 2

// Addresses and ports as on the wire.
struct service_key {
	__be32 address;
	__be16 port;
	__u16 protocol;
};

struct service {
	__u32 id;
	__u32 backends;
};

struct backend_key {
	__u32 service;
	__u32 slot;
};

struct end {
	__be32 address;
	__be16 port;
	__u16 zero;
};

struct asked_key {
	__u64 socket;
	struct end backend;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct service_key);
	__type(value, struct service);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct backend_key);
	__type(value, struct end);
} backends SEC(".maps");

// What a socket asked for when it was given a backend. The oldest are forgotten.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct asked_key);
	__type(value, struct end);
} asked SEC(".maps");

static __always_inline int translate(struct bpf_sock_addr *ctx, struct end *to)
{
	struct service_key key = { to->address, to->port, ctx->protocol };
	struct service *service = bpf_map_lookup_elem(&services, &key);
	if (!service)
		return UNKNOWN;
	__u32 count = service->backends;
	if (!count)
		return NO_BACKEND;
	struct backend_key slot = { service->id, bpf_get_prandom_u32() % count };
	struct end *backend = bpf_map_lookup_elem(&backends, &slot);
	if (!backend) {
		// The last slot went between the two looks; the first goes last.
		slot.slot = 0;
		backend = bpf_map_lookup_elem(&backends, &slot);
		if (!backend)
			return NO_BACKEND;
	}
	struct asked_key reply = { bpf_get_socket_cookie(ctx), *backend };
	struct end *known = bpf_map_lookup_elem(&asked, &reply);
	if (!known || known->address != to->address || known->port != to->port)
		bpf_map_update_elem(&asked, &reply, to, BPF_ANY);
	*to = *backend;
	return TRANSLATED;
}

static __always_inline int restore(struct bpf_sock_addr *ctx, struct end *from)
{
	struct asked_key key = { bpf_get_socket_cookie(ctx), *from };
	struct end *service = bpf_map_lookup_elem(&asked, &key);
	if (!service)
		return UNKNOWN;
	*from = *service;
	return TRANSLATED;
}

// 1 lets the call go on, 0 ends it.
static __always_inline int verdict(int outcome)
{
	if (outcome != NO_BACKEND)
		return 1;
	bpf_set_retval(-ECONNREFUSED);
	return 0;
}

static __always_inline int is_ipv4(struct bpf_sock_addr *ctx)
{
	return !ctx->user_ip6[0] && !ctx->user_ip6[1] && ctx->user_ip6[2] == bpf_htonl(0xffff);
}

#define HOOKS(name, change)                                               \
	SEC("cgroup/" #name "4")                                          \
	int name##4(struct bpf_sock_addr *ctx)                            \
	{                                                                 \
		struct end end = { ctx->user_ip4, ctx->user_port, 0 };    \
		int outcome = change(ctx, &end);                          \
		if (outcome == TRANSLATED) {                              \
			ctx->user_ip4 = end.address;                      \
			ctx->user_port = end.port;                        \
		}                                                         \
		return verdict(outcome);                                  \
	}                                                                 \
	SEC("cgroup/" #name "6")                                          \
	int name##6(struct bpf_sock_addr *ctx)                            \
	{                                                                 \
		if (!is_ipv4(ctx))                                        \
			return 1;                                         \
		struct end end = { ctx->user_ip6[3], ctx->user_port, 0 }; \
		int outcome = change(ctx, &end);                          \
		if (outcome == TRANSLATED) {                              \
			ctx->user_ip6[3] = end.address;                   \
			ctx->user_port = end.port;                        \
		}                                                         \
		return verdict(outcome);                                  \
	}

HOOKS(connect, translate)
HOOKS(sendmsg, translate)
HOOKS(recvmsg, restore)
HOOKS(getpeername, restore)

char _license[] SEC("license") = "GPL";
