// SPDX-License-Identifier: GPL-2.0-only
/*
 * Two sockets become one stream, without a program between them.
 *
 * Every byte between the host and what listens in the guest goes through two sockets of the agent's: one to the host, one
 * to the engine or to a container's port. The agent makes both, and hands them over:
 *
 *	host == vsock --[ here ]-- TCP or unix == engine, container
 *
 * From then on what one has is sent into the other, and its end is the other's end of writing. Nothing has to wake the
 * agent, whose memory the processor would have to take up and leave again for each message: that is most of what a small one
 * costs, and under emulation nearly all of it.
 *
 *	joined --both ways ended, or one broke--> parted: both sockets are let go
 */

#include <linux/capability.h>
#include <linux/file.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/net.h>
#include <linux/percpu.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/virtio_vsock.h>
#include <linux/workqueue.h>
#include <net/af_vsock.h>
#include <net/sock.h>

/* What the agent writes: descriptors of its own, of connected streams. The agent's `hand_over` writes the same. */
struct request {
	__s32 sockets[2];
};

/* Bytes that are taken at once. */
#define BYTES	65536
/* So often at most, then others have their turn. */
#define ROUNDS	32

/* From one socket to the other. */
struct way {
	char *bytes;		/* taken and not sent, or NULL */
	size_t at, length;
	bool more;		/* there may be some to take */
	bool fresh;		/* what came before it was joined is not yet taken */
	bool ended;
};

/* What was called since the pair had its turn: each way's number for what came from that end, and this. */
#define CHANGED	2

struct pair {
	struct work_struct work;
	struct end {
		struct socket *socket;	/* holds its file */
		void (*state_change)(struct sock *sk);
		void (*data_ready)(struct sock *sk);
		void (*write_space)(struct sock *sk);
		void (*error_report)(struct sock *sk);
	} ends[2];
	struct way ways[2];	/* each from the end of the same number */
	unsigned long called;	/* bits: see CHANGED */
	bool changed;		/* an end may be over */
	bool whole;		/* both ends are attached */
};

static struct workqueue_struct *queue;
/* How many streams are joined now: /sys/module/slipway_splice/parameters/streams. */
static atomic_t streams = ATOMIC_INIT(0);
module_param_named(streams, streams.counter, int, 0444);
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

/* Its pair has its turn; the call is kept for it, if it is one of those. */
static void call(struct sock *sk, bool came, bool changed)
{
	struct pair *pair;

	read_lock_bh(&sk->sk_callback_lock);
	pair = sk->sk_user_data;
	if (pair && READ_ONCE(pair->whole)) {
		if (came)
			set_bit(sk == pair->ends[1].socket->sk, &pair->called);
		if (changed)
			set_bit(CHANGED, &pair->called);
		queue_work(queue, &pair->work);
	}
	read_unlock_bh(&sk->sk_callback_lock);
}

static void came(struct sock *sk)
{
	call(sk, true, false);
}

static void changed(struct sock *sk)
{
	call(sk, false, true);
}

/* As the kernel's own: TCP calls at each answer, and is not worth sending to before a third of its buffer is free. */
static void space(struct sock *sk)
{
	if (sk_is_tcp(sk) && sk->sk_socket) {
		if (!sk_stream_is_writeable(sk))
			return;
		clear_bit(SOCK_NOSPACE, &sk->sk_socket->flags);
	}
	call(sk, false, false);
}

/*
 * What virtio's sockets have ready, as their own recvmsg takes it, but for one thing: that tells the host of the room at
 * each message that leaves the queue empty, with a packet and its interrupt, before anybody has seen the message. The host
 * has enough room to go on, and hears with the next packet for it; in the end by itself. 0: nothing, or not for us to say.
 */
static int take_packets(struct socket *source, char *bytes)
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
	while (taken < BYTES) {
		struct sk_buff *skb = skb_peek(&queued->rx_queue);
		unsigned int length, *offset;

		if (!skb)
			break;
		offset = &VIRTIO_VSOCK_SKB_CB(skb)->offset;
		length = min_t(unsigned int, skb->len - *offset, BYTES - taken);
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
static bool is_drained(const struct pair *pair, const struct way *way, struct socket *source, bool packets)
{
	if (way->fresh || pair->changed || way->length == BYTES)
		return false;
	/* Others of AF_VSOCK have queues of their own. */
	return packets || (source->sk->sk_family != AF_VSOCK && skb_queue_empty_lockless(&source->sk->sk_receive_queue));
}

/* Sends what was taken, or takes more. 1: there may be more to do, 0: not before somebody calls, less: it broke. */
static int move(struct pair *pair, unsigned int from)
{
	struct socket *source = pair->ends[from].socket, *target = pair->ends[!from].socket;
	struct way *way = &pair->ways[from];
	struct msghdr message = { .msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL };
	struct kvec piece;
	bool packets;
	int done;

	if (way->ended)
		return 0;
	if (way->at == way->length) {
		if (!way->more)
			return 0;
		if (!way->bytes)
			way->bytes = get_bytes();
		if (!way->bytes)
			return -ENOMEM;
		piece = (struct kvec){ .iov_base = way->bytes, .iov_len = BYTES };
		done = take_packets(source, way->bytes);
		packets = done > 0;
		if (!packets)
			done = kernel_recvmsg(source, &message, &piece, 1, BYTES, MSG_DONTWAIT);
		if (done <= 0) {
			put_bytes(way->bytes);
			way->bytes = NULL;
			way->at = way->length = 0;
			way->more = way->fresh = false;
			if (done)
				return done == -EAGAIN ? 0 : done;
			way->ended = true;
			/* Who is gone already says so when he is read. */
			kernel_sock_shutdown(target, SHUT_WR);
			return 1;
		}
		way->at = 0;
		way->length = done;
		way->more = !is_drained(pair, way, source, packets);
	}
	message = (struct msghdr){ .msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL };
	piece = (struct kvec){ .iov_base = way->bytes + way->at, .iov_len = way->length - way->at };
	done = kernel_sendmsg(target, &message, &piece, 1, piece.iov_len);
	if (done < 0)
		return done == -EAGAIN ? 0 : done;
	way->at += done;
	if (way->at < way->length || way->more)
		return 1;
	put_bytes(way->bytes);
	way->bytes = NULL;
	return 0;
}

static int attach(struct pair *pair, struct end *end)
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

static void detach(struct end *end)
{
	struct sock *sk = end->socket->sk;

	write_lock_bh(&sk->sk_callback_lock);
	sk->sk_state_change = end->state_change;
	sk->sk_data_ready = end->data_ready;
	sk->sk_write_space = end->write_space;
	sk->sk_error_report = end->error_report;
	sk->sk_user_data = NULL;
	write_unlock_bh(&sk->sk_callback_lock);
}

static void let_go(struct pair *pair)
{
	unsigned int i;

	for (i = 0; i < 2; i++) {
		put_bytes(pair->ways[i].bytes);
		if (pair->ends[i].socket)
			sockfd_put(pair->ends[i].socket);
	}
	kfree(pair);
}

static void part(struct pair *pair)
{
	detach(&pair->ends[0]);
	detach(&pair->ends[1]);
	/* Nobody can call for it any more; somebody may have since it began. */
	cancel_work(&pair->work);
	let_go(pair);
	atomic_dec(&streams);
}

static void run(struct work_struct *work)
{
	struct pair *pair = container_of(work, struct pair, work);
	unsigned long called = xchg(&pair->called, 0);
	unsigned int i, left = ROUNDS;
	int one, other;

	/* For good: what an end says then is not to be missed. */
	pair->changed |= called & BIT(CHANGED);
	for (i = 0; i < 2; i++)
		pair->ways[i].more |= called & (BIT(i) | BIT(CHANGED));
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
		queue_work(queue, &pair->work);
}

static int join(const struct request *request)
{
	struct pair *pair = kzalloc(sizeof(*pair), GFP_KERNEL);
	unsigned int i;
	int error = 0;

	if (!pair)
		return -ENOMEM;
	INIT_WORK(&pair->work, run);
	for (i = 0; i < 2; i++)
		pair->ways[i].more = pair->ways[i].fresh = true;
	for (i = 0; i < 2 && !error; i++) {
		pair->ends[i].socket = sockfd_lookup(request->sockets[i], &error);
		if (!error && pair->ends[i].socket->type != SOCK_STREAM)
			error = -EINVAL;
	}
	if (!error)
		error = attach(pair, &pair->ends[0]);
	if (!error) {
		error = attach(pair, &pair->ends[1]);
		if (error)
			detach(&pair->ends[0]);
	}
	if (error) {
		let_go(pair);
		return error;
	}
	atomic_inc(&streams);
	WRITE_ONCE(pair->whole, true);
	/* For what came before. */
	queue_work(queue, &pair->work);
	return 0;
}

static ssize_t device_write(struct file *file, const char __user *from, size_t count, loff_t *offset)
{
	struct request request;
	int error;

	if (count != sizeof(request))
		return -EINVAL;
	if (copy_from_user(&request, from, sizeof(request)))
		return -EFAULT;
	error = join(&request);
	return error ?: count;
}

static int device_open(struct inode *inode, struct file *file)
{
	return capable(CAP_SYS_ADMIN) ? stream_open(inode, file) : -EPERM;
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.open = device_open,
	.write = device_write,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "slipway-splice",
	.fops = &operations,
	.mode = 0600,
};

/* Without a way out: streams may be under way until the machine ends. */
static int __init start(void)
{
	int error;

	queue = alloc_workqueue("slipway-splice", 0, 0);
	if (!queue)
		return -ENOMEM;
	error = misc_register(&device);
	if (error)
		destroy_workqueue(queue);
	return error;
}
module_init(start);

MODULE_DESCRIPTION("Joins the agent's sockets to streams");
MODULE_LICENSE("GPL");
