// SPDX-License-Identifier: GPL-2.0-only
/*
 * Accepts streams to published ports, reads where each wants to go, and connects it. The target is TCP, in the guest's own
 * network, where the engine's bridges are.
 */

#include <linux/file.h>
#include <linux/inet.h>
#include <linux/slab.h>
#include <linux/tcp.h>
#include <linux/unaligned.h>
#include <net/af_vsock.h>
#include <net/net_namespace.h>
#include <net/sock.h>
#include <net/tcp.h>

#include "splice.h"

/* A Dial's frame: how long what follows is, the tag of its field `tcp`, how long that is, and `address:port`. */
#define FRAME	4
#define TAG	0x12
#define TARGET	(FRAME + 2)
#define LONGEST	(INET6_ADDRSTRLEN + sizeof("[]:65535"))
/* So often a SYN is sent again, which is 31 s until a target that does not answer is given up. */
#define SYNS	4
/* Until it is accepted again after there was no memory for it. */
#define RETRY	msecs_to_jiffies(100)

/* A socket that listens for streams to published ports. */
struct door {
	struct delayed_work work;
	struct socket *listener;	/* holds its file */
};

/* Reads a Dial. 1: here is where it wants to go, 0: not before somebody calls, less: it is none. */
static int read_dial(struct pair *pair, struct sockaddr_storage *address)
{
	struct way *way = &pair->ways[0];
	char text[LONGEST], *port, *end;
	size_t length = 0;

	while (way->length < TARGET + length) {
		int done = take(pair, 0);

		if (done <= 0)
			return done == -EAGAIN ? 0 : done ?: -ECONNRESET;
		if (way->length < TARGET)
			continue;
		length = (u8)way->bytes[TARGET - 1];
		if (get_unaligned_be32(way->bytes) != TARGET - FRAME + length || way->bytes[FRAME] != TAG || length >= LONGEST)
			return -EPROTO;
	}
	memcpy(text, way->bytes + TARGET, length);
	text[length] = '\0';
	/* What came behind it is the target's. */
	way->at = TARGET + length;
	if (way->at == way->length)
		forget_bytes(way);
	port = strrchr(text, ':');
	if (!port)
		return -EINVAL;
	*port++ = '\0';
	end = port - 2;
	if (text[0] == '[' && end > text && *end == ']') {
		*end = '\0';
		return inet_pton_with_scope(&init_net, AF_INET6, text + 1, port, address) ?: 1;
	}
	return inet_pton_with_scope(&init_net, AF_INET, text, port, address) ?: 1;
}

/* Begins a connection to there, as the pair's other end. */
static int begin(struct pair *pair, struct sockaddr_storage *address)
{
	struct end *end = &pair->ends[1];
	bool six = address->ss_family == AF_INET6;
	struct socket *socket;
	int error = sock_create_kern(&init_net, address->ss_family, SOCK_STREAM, IPPROTO_TCP, &socket);

	if (error)
		return error;
	/* The client decides what belongs together; waiting for more only adds the guest's delay to the network's. */
	tcp_sock_set_nodelay(socket->sk);
	tcp_sock_set_syncnt(socket->sk, SYNS);
	/* Who has something to say lets that be the handshake's last packet. Who has not answers at once. */
	if (pair->ways[0].bytes)
		tcp_sock_set_quickack(socket->sk, 0);
	end->socket = socket;
	error = attach(pair, end);
	if (error)
		return error;
	error = kernel_connect(socket, (struct sockaddr *)address,
			       six ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in), O_NONBLOCK);
	return error == -EINPROGRESS ? 0 : error;
}

/* Brings a listener's stream to where it wants to go. 1: it is there, 0: not before somebody calls, less: it broke. */
int reach(struct pair *pair)
{
	struct way *back = &pair->ways[1];
	int state;

	if (!pair->ends[1].socket) {
		struct sockaddr_storage address;
		int done = read_dial(pair, &address);

		if (done <= 0)
			return done;
		done = begin(pair, &address);
		if (done)
			return done;
	}
	/* That it changed into this is not what `changed` means. */
	clear_bit(CHANGED(1), &pair->called);
	smp_mb__after_atomic();
	state = READ_ONCE(pair->ends[1].socket->sk->sk_state);
	if (state == TCP_SYN_SENT || state == TCP_SYN_RECV)
		return 0;
	if (state == TCP_CLOSE)
		return -ECONNREFUSED;
	back->changed = state != TCP_ESTABLISHED;
	back->more = back->changed || !skb_queue_empty_lockless(&pair->ends[1].socket->sk->sk_receive_queue);
	pair->joined = true;
	atomic_inc(&splice_dialled);
	return 1;
}

/* A stream that a listener has accepted. Who else than the host connects (a container over a loopback transport) is not served. */
static void admit(struct socket *socket)
{
	struct pair *pair;

	if (vsock_sk(socket->sk)->remote_addr.svm_cid != VMADDR_CID_HOST)
		goto refuse;
	pair = new_pair();
	if (!pair)
		goto refuse;
	pair->ways[0].more = pair->ways[0].fresh = true;
	pair->ends[0].socket = socket;
	if (attach(pair, &pair->ends[0]))
		let_go(pair);
	else
		set_off(pair);
	return;
refuse:
	sock_release(socket);
}

static void answer(struct work_struct *work)
{
	struct door *door = container_of(to_delayed_work(work), struct door, work);
	unsigned int left = ROUNDS;

	do {
		struct socket *socket;
		int error = kernel_accept(door->listener, &socket, O_NONBLOCK);

		if (error == -EAGAIN)
			return;
		if (error) {
			queue_delayed_work(splice_queue, &door->work, RETRY);
			return;
		}
		admit(socket);
	} while (--left);
	queue_delayed_work(splice_queue, &door->work, 0);
}

static void knocked(struct sock *sk)
{
	struct door *door;

	read_lock_bh(&sk->sk_callback_lock);
	door = sk->sk_user_data;
	if (door)
		queue_delayed_work(splice_queue, &door->work, 0);
	read_unlock_bh(&sk->sk_callback_lock);
}

/* For good: the agent listens as long as the machine runs. */
int listen(int listener)
{
	struct door *door = kzalloc(sizeof(*door), GFP_KERNEL);
	struct sock *sk;
	int error = 0;

	if (!door)
		return -ENOMEM;
	INIT_DELAYED_WORK(&door->work, answer);
	door->listener = sockfd_lookup(listener, &error);
	if (!door->listener)
		goto free;
	sk = door->listener->sk;
	write_lock_bh(&sk->sk_callback_lock);
	if (sk->sk_family != AF_VSOCK || sk->sk_state != TCP_LISTEN)
		error = -EINVAL;
	else if (sk->sk_user_data)
		error = -EBUSY;
	if (!error) {
		sk->sk_user_data = door;
		sk->sk_data_ready = knocked;
	}
	write_unlock_bh(&sk->sk_callback_lock);
	if (!error) {
		/* For who came before. */
		queue_delayed_work(splice_queue, &door->work, 0);
		return 0;
	}
	sockfd_put(door->listener);
free:
	kfree(door);
	return error;
}

