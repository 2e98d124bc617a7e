// SPDX-License-Identifier: GPL-2.0-only
/*
 * Moves what one socket of a pair has into the other, when one of them calls for it. All that changes is touched in the pair's
 * turns only, which never run twice at once; sockets' calls leave bits.
 */

#include <linux/file.h>
#include <linux/percpu.h>
#include <linux/slab.h>
#include <linux/virtio_vsock.h>
#include <net/af_vsock.h>
#include <net/sock.h>

#include "splice.h"

/* One for the next who takes something: the kernel clears what it gives, which is more work than most messages are. */
static DEFINE_PER_CPU(char *, spare);

static char *get_bytes(void)
{
	return this_cpu_xchg(spare, NULL) ?: kvmalloc(BYTES, GFP_KERNEL);
}

static void put_bytes(char *bytes)
{
	if (bytes && this_cpu_cmpxchg(spare, NULL, bytes))
		kvfree(bytes);
}

/* Its pair has its turn, and finds these bits, each of which is one of the end's. */
static void call(struct sock *sk, unsigned int bit)
{
	struct pair *pair;

	read_lock_bh(&sk->sk_callback_lock);
	pair = sk->sk_user_data;
	if (pair && READ_ONCE(pair->whole)) {
		bool wanted = true;

		bit += sk != pair->ends[0].socket->sk;
		if (bit < FULL(0))
			set_bit(bit, &pair->called);
		else
			/* Sockets of AF_VSOCK call for room at each packet that came, or went. */
			wanted = test_and_clear_bit(bit, &pair->called);
		if (wanted)
			queue_work(splice_queue, &pair->work);
	}
	read_unlock_bh(&sk->sk_callback_lock);
}

static void came(struct sock *sk)
{
	call(sk, CAME(0));
}

static void changed(struct sock *sk)
{
	call(sk, CHANGED(0));
}

/* As the kernel's own: TCP is not worth sending to before a third of its buffer is free. */
static void space(struct sock *sk)
{
	if (sk_is_tcp(sk) && sk->sk_socket) {
		if (!sk_stream_is_writeable(sk))
			return;
		clear_bit(SOCK_NOSPACE, &sk->sk_socket->flags);
	}
	call(sk, FULL(0));
}

/*
 * What virtio's sockets have ready, as their own recvmsg takes it, but for one thing: that tells the host of the room at
 * each message that leaves the queue empty, with a packet and its interrupt, before anybody has seen the message. The host
 * has enough room to go on, and hears with the next packet for it; in the end by itself. 0: nothing, or not for us to say.
 */
static int take_packets(struct socket *source, char *bytes, unsigned int room)
{
	struct sock *sk = source->sk;
	struct virtio_vsock_sock *queued;
	struct vsock_sock *vsk;
	int taken = 0;
	bool tell;

	if (sk->sk_family != AF_VSOCK)
		return 0;
	vsk = vsock_sk(sk);
	lock_sock(sk);
	if (!vsk->transport || vsk->transport->stream_dequeue != virtio_transport_stream_dequeue) {
		/* Another hypervisor's. */
		release_sock(sk);
		return 0;
	}
	queued = vsk->trans;
	spin_lock_bh(&queued->rx_lock);
	while (taken < room) {
		struct sk_buff *skb = skb_peek(&queued->rx_queue);
		unsigned int length, *offset;

		if (!skb)
			break;
		offset = &VIRTIO_VSOCK_SKB_CB(skb)->offset;
		length = min_t(unsigned int, skb->len - *offset, room - taken);
		if (skb_copy_bits(skb, *offset, bytes + taken, length))
			break;
		taken += length;
		*offset += length;
		queued->rx_bytes -= length;
		if (*offset == skb->len) {
			u32 whole = le32_to_cpu(virtio_vsock_hdr(skb)->len);

			queued->buf_used -= whole;
			queued->fwd_cnt += whole;
			__skb_unlink(skb, &queued->rx_queue);
			consume_skb(skb);
		}
	}
	tell = queued->buf_alloc - (queued->fwd_cnt - queued->last_fwd_cnt) < VIRTIO_VSOCK_MAX_PKT_BUF_SIZE;
	spin_unlock_bh(&queued->rx_lock);
	if (tell) {
		u64 size = queued->buf_alloc;

		/* Says how much room there is, by the way in which that changes. */
		virtio_transport_notify_buffer_size(vsk, &size);
	}
	release_sock(sk);
	return taken;
}

/*
 * Is all taken that was there? To look once more in vain is a good part of a small message's work. A socket that is over says
 * so to who looks once more: that has to be done for one that may be.
 */
static bool is_drained(const struct way *way, struct socket *source, bool packets)
{
	if (way->fresh || way->changed || way->length == BYTES)
		return false;
	/* Others of AF_VSOCK have queues of their own. */
	return packets || (source->sk->sk_family != AF_VSOCK && skb_queue_empty_lockless(&source->sk->sk_receive_queue));
}

/* Takes what there is behind what was taken. 0: it is over; -EAGAIN: not before somebody calls. */
int take(struct pair *pair, unsigned int from)
{
	struct socket *source = pair->ends[from].socket;
	struct way *way = &pair->ways[from];
	struct msghdr message = { .msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL };
	struct kvec piece;
	bool packets;
	int done;

	if (!way->bytes)
		way->bytes = get_bytes();
	if (!way->bytes)
		return -ENOMEM;
	piece = (struct kvec){ .iov_base = way->bytes + way->length, .iov_len = BYTES - way->length };
	done = take_packets(source, piece.iov_base, piece.iov_len);
	packets = done > 0;
	if (!packets)
		done = kernel_recvmsg(source, &message, &piece, 1, piece.iov_len, MSG_DONTWAIT);
	if (done > 0) {
		way->length += done;
		way->more = !is_drained(way, source, packets);
	} else {
		way->more = way->fresh = false;
	}
	return done;
}

void forget_bytes(struct way *way)
{
	put_bytes(way->bytes);
	way->bytes = NULL;
	way->at = way->length = 0;
}

/* Sends what was taken, or takes more. 1: there may be more to do, 0: not before somebody calls, less: it broke. */
static int move(struct pair *pair, unsigned int from)
{
	struct socket *target = pair->ends[!from].socket;
	struct way *way = &pair->ways[from];
	struct msghdr message = { .msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL };
	struct kvec piece;
	int done;

	if (way->ended)
		return 0;
	if (way->at == way->length) {
		if (!way->more)
			return 0;
		way->at = way->length = 0;
		done = take(pair, from);
		if (done <= 0) {
			forget_bytes(way);
			if (done)
				return done == -EAGAIN ? 0 : done;
			way->ended = true;
			/*
			 * Who is gone already says so when he is read. The last end of all is told by letting go, but for a file,
			 * which the kernel closes some milliseconds later.
			 */
			if (!pair->ways[!from].ended || target->file)
				kernel_sock_shutdown(target, SHUT_WR);
			return 1;
		}
	}
	piece = (struct kvec){ .iov_base = way->bytes + way->at, .iov_len = way->length - way->at };
	/* Once more after it is known that there is something to call for: it may have been called before. */
	do {
		done = kernel_sendmsg(target, &message, &piece, 1, piece.iov_len);
	} while (done == -EAGAIN && !test_and_set_bit(FULL(!from), &pair->called));
	if (done < 0)
		return done == -EAGAIN ? 0 : done;
	way->at += done;
	if (way->at < way->length || way->more)
		return 1;
	forget_bytes(way);
	return 0;
}

int attach(struct pair *pair, struct end *end)
{
	struct sock *sk = end->socket->sk;
	int error = 0;

	write_lock_bh(&sk->sk_callback_lock);
	if (sk->sk_user_data) {
		/* Joined already, or somebody else's: his callbacks would be lost. */
		error = -EBUSY;
	} else {
		end->state_change = sk->sk_state_change;
		end->data_ready = sk->sk_data_ready;
		end->write_space = sk->sk_write_space;
		end->error_report = sk->sk_error_report;
		sk->sk_user_data = pair;
		sk->sk_state_change = changed;
		sk->sk_data_ready = came;
		sk->sk_write_space = space;
		sk->sk_error_report = changed;
	}
	write_unlock_bh(&sk->sk_callback_lock);
	return error;
}

/* Nothing, for one that is not attached. */
static void detach(struct end *end)
{
	struct sock *sk;

	if (!end->data_ready)
		return;
	sk = end->socket->sk;
	write_lock_bh(&sk->sk_callback_lock);
	sk->sk_state_change = end->state_change;
	sk->sk_data_ready = end->data_ready;
	sk->sk_write_space = end->write_space;
	sk->sk_error_report = end->error_report;
	sk->sk_user_data = NULL;
	write_unlock_bh(&sk->sk_callback_lock);
}

/* Ends it, however far it came. */
void let_go(struct pair *pair)
{
	unsigned int i;

	detach(&pair->ends[0]);
	detach(&pair->ends[1]);
	/* Nobody can call for it any more; somebody may have since it began. */
	cancel_work(&pair->work);
	for (i = 0; i < 2; i++) {
		struct socket *socket = pair->ends[i].socket;

		put_bytes(pair->ways[i].bytes);
		if (!socket)
			continue;
		/* The agent's, or made here. */
		if (socket->file)
			sockfd_put(socket);
		else
			sock_release(socket);
	}
	kfree(pair);
}

static void part(struct pair *pair)
{
	let_go(pair);
	atomic_dec(&splice_streams);
}

static void run(struct work_struct *work)
{
	struct pair *pair = container_of(work, struct pair, work);
	unsigned long called = xchg(&pair->called, 0);
	unsigned int i, left = ROUNDS;
	int one, other;

	for (i = 0; i < 2; i++) {
		struct way *way = &pair->ways[i];

		/* For good: what an end says then is not to be missed. */
		way->changed |= called & BIT(CHANGED(i));
		way->more |= called & (BIT(CAME(i)) | BIT(CHANGED(i)));
	}
	if (!pair->joined) {
		int reached = reach(pair);

		if (reached < 0)
			part(pair);
		if (reached <= 0)
			return;
	}
	do {
		one = move(pair, 0);
		other = move(pair, 1);
		if (one < 0 || other < 0 || (pair->ways[0].ended && pair->ways[1].ended)) {
			part(pair);
			return;
		}
		cond_resched();
	} while ((one || other) && --left);
	if (one || other)
		queue_work(splice_queue, &pair->work);
}

/* From now on it has its turns. */
void set_off(struct pair *pair)
{
	atomic_inc(&splice_streams);
	WRITE_ONCE(pair->whole, true);
	/* For what came before. */
	queue_work(splice_queue, &pair->work);
}

/* One without sockets, whose turn has not come. */
struct pair *new_pair(void)
{
	struct pair *pair = kzalloc(sizeof(*pair), GFP_KERNEL);

	if (pair)
		INIT_WORK(&pair->work, run);
	return pair;
}

/* Joins two connected streams, by the descriptors of who asks. */
int join(int one, int other)
{
	const int descriptors[] = { one, other };
	struct pair *pair = new_pair();
	unsigned int i;
	int error = 0;

	if (!pair)
		return -ENOMEM;
	pair->joined = true;
	for (i = 0; i < 2; i++)
		pair->ways[i].more = pair->ways[i].fresh = true;
	for (i = 0; i < 2 && !error; i++) {
		pair->ends[i].socket = sockfd_lookup(descriptors[i], &error);
		if (!error && pair->ends[i].socket->type != SOCK_STREAM)
			error = -EINVAL;
	}
	if (!error)
		error = attach(pair, &pair->ends[0]);
	if (!error)
		error = attach(pair, &pair->ends[1]);
	if (error) {
		let_go(pair);
		return error;
	}
	set_off(pair);
	return 0;
}

