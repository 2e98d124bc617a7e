/* SPDX-License-Identifier: GPL-2.0-only */
/* What the parts of the module share: a pair of sockets, and its way through it. */
#ifndef SLIPWAY_SPLICE_H
#define SLIPWAY_SPLICE_H

#include <linux/atomic.h>
#include <linux/net.h>
#include <linux/workqueue.h>

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
	bool changed;		/* the end that it comes from may be over */
	bool ended;
};

/* What was called since the pair had its turn, as bits, for each end; and whether there is something to call its room for. */
#define CAME(end)	(end)
#define CHANGED(end)	(2 + (end))
#define FULL(end)	(4 + (end))

struct pair {
	struct work_struct work;
	struct end {
		struct socket *socket;	/* holds its file, if it has one */
		void (*state_change)(struct sock *sk);
		void (*data_ready)(struct sock *sk);
		void (*write_space)(struct sock *sk);
		void (*error_report)(struct sock *sk);
	} ends[2];
	struct way ways[2];	/* each from the end of the same number */
	unsigned long called;
	bool whole;		/* all ends that it has are attached */
	bool joined;
};

extern struct workqueue_struct *splice_queue;
extern atomic_t splice_streams, splice_dialled;

/* pair.c: one that is whole and joined has its turns from `set_off` on, and lets itself go in the end. */
struct pair *new_pair(void);
int attach(struct pair *pair, struct end *end);
void set_off(struct pair *pair);
void let_go(struct pair *pair);
int take(struct pair *pair, unsigned int from);
void forget_bytes(struct way *way);
int join(int one, int other);

/* dial.c */
int reach(struct pair *pair);
int listen(int listener);

#endif
