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
 *
 * The connections of published ports need no agent at all. He hands over the sockets that listen for them, and each says in
 * its first frame, a Dial, where in the guest it wants to go:
 *
 *	accepted --Dial--> connecting --> joined
 *	    \                  \__ refused, no answer: parted
 *	     \__ no Dial, of TCP, or not the host: parted
 */

#include <linux/capability.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/uaccess.h>

#include "splice.h"

/* What the agent writes: descriptors of its own. The agent's `splice` writes the same. */
struct request {
	__s32 sockets[2];	/* two connected streams, or one that listens and NONE */
};
#define NONE	(-1)

struct workqueue_struct *splice_queue;
/* How many streams there are now, and how many were brought to where they wanted to go: /sys/module/slipway_splice/parameters. */
atomic_t splice_streams = ATOMIC_INIT(0), splice_dialled = ATOMIC_INIT(0);
module_param_named(streams, splice_streams.counter, int, 0444);
module_param_named(dialled, splice_dialled.counter, int, 0444);

static ssize_t device_write(struct file *file, const char __user *from, size_t count, loff_t *offset)
{
	struct request request;
	int error;

	if (count != sizeof(request))
		return -EINVAL;
	if (copy_from_user(&request, from, sizeof(request)))
		return -EFAULT;
	error = request.sockets[1] == NONE ? listen(request.sockets[0]) : join(request.sockets[0], request.sockets[1]);
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

	splice_queue = alloc_workqueue("slipway-splice", 0, 0);
	if (!splice_queue)
		return -ENOMEM;
	error = misc_register(&device);
	if (error)
		destroy_workqueue(splice_queue);
	return error;
}
module_init(start);

MODULE_DESCRIPTION("Joins the agent's sockets to streams");
MODULE_LICENSE("GPL");
