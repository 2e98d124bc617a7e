// SPDX-License-Identifier: GPL-2.0-only
/*
 * What changed on the host becomes an event of the guest's kernel.
 *
 * Neither a virtiofs nor a 9p tells anybody that a file changed on the host's side. The agent hears of it from the host and writes it to
 * /dev/slipway-fsnotify; this module makes the kernel forget what is not true any more, and calls fsnotify(), so that
 * inotify reports what it would report on the host.
 *
 *	host: inotify -> share server -> vsock -> agent: write() -> here -> fsnotify() -> watchers
 *
 * Whatever is written is checked: one of seven events, in a folder below one of such a file system that the agent has open,
 * with a name that names an entry of it. fsnotify() is never called without an object of that file system.
 *
 * A folder is looked for in what the kernel remembers, and only then asked for: one that is deleted on the host is still
 * watched here, and its watchers are to hear what became of it.
 *
 * A 9p is told by where names lead now, and by the host's numbers: it has a new inode for each time that a name is looked up, so that
 * who watches has mostly another one than who asks next. Who watches a deleted file of it hears of that by its folder alone, since there
 * is nothing left whose number could be asked for.
 */

#include <linux/capability.h>
#include <linux/dcache.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/fsnotify.h>
#include <linux/iversion.h>
#include <linux/magic.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/mutex.h>
#include <linux/namei.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

/* Two texts follow, without padding and without zeros. The agent's `record` writes the same. */
struct head {
	__u32 mask;	/* one of KINDS, and FS_ISDIR; or LINK; or FS_Q_OVERFLOW: events were lost */
	__u32 cookie;	/* the host's, of a move: joins its two halves; of FS_Q_OVERFLOW: not 0 if watchers are to know */
	__s32 root;	/* descriptor of the caller's */
	__u16 below;	/* bytes of the folder's path below the root, 0: the root itself */
	__u16 name;	/* bytes of the name in the folder, 0: the folder itself */
} __packed;

#define NAMES	(FS_CREATE | FS_DELETE | FS_MOVED_FROM | FS_MOVED_TO)
#define CHANGES	(FS_MODIFY | FS_ATTRIB | FS_CLOSE_WRITE)
#define KINDS	(NAMES | CHANGES)
/* One more name of a file that may be known by another. */
#define LINK	(FS_CREATE | FS_ATTRIB)

/* Bytes of one write(). */
#define LONGEST	65536
/* Moves whose second half may be under way at once. */
#define MOVES	16
/* Files that are remembered as made in a batch. */
#define UNSEEN	16

/* One write(). Its events have all happened on the host when it begins: what is asked once need not be asked again. */
struct batch {
	struct path at;		/* the folder of the event before, if there was one: */
	int root;
	const char *below;
	u32 length;
	struct dentry *fresh;	/* its attributes were just asked for */
	struct inode *nobody;	/* the device's own, which nobody watches */
	/* Made in this batch, and in the guest nobody has looked at them. */
	struct {
		struct inode *folder;
		u64 hash_len;
	} unseen[UNSEEN];
	unsigned int last_unseen;
	char path[PATH_MAX];
	char name[NAME_MAX + 1];
};

static DEFINE_MUTEX(writing);
static atomic_t opened = ATOMIC_INIT(0);

/* Moves whose second half is to come. Cookies are the guest's own, or they could be those of a move that a container makes;
 * and what the first half took away the second half brings.
 */
static struct move {
	u32 host, guest;
	struct inode *inode;	/* referenced; NULL: the kernel does not know it */
	struct vfsmount *mnt;	/* likewise: the file system stays as long as the inode */
} moves[MOVES];
static unsigned int last_move;
/* What was moved of late, referenced: FUSE would let go at once of a name that nothing vouches for. */
static struct path arrived[MOVES];
static unsigned int last_arrived;

/* After this time the events of one deed have arrived, on the busiest machine. */
#define SETTLED	(5 * HZ)
static void tidy(struct work_struct *work);
static DECLARE_DELAYED_WORK(tidying, tidy);

static void drop_move(struct move *move)
{
	if (move->inode) {
		iput(move->inode);
		mntput(move->mnt);
	}
	*move = (struct move){};
}

static void drop_path(struct path *path)
{
	if (path->dentry)
		path_put(path);
	*path = (struct path){};
}

static void tidy(struct work_struct *work)
{
	unsigned int i;

	mutex_lock(&writing);
	for (i = 0; i < MOVES; i++) {
		drop_move(&moves[i]);
		drop_path(&arrived[i]);
	}
	mutex_unlock(&writing);
}

static struct move *move_for(u32 host)
{
	unsigned int i;

	for (i = 0; i < MOVES; i++)
		if (moves[i].guest && moves[i].host == host)
			return &moves[i];
	last_move = (last_move + 1) % MOVES;
	drop_move(&moves[last_move]);
	moves[last_move] = (struct move){ .host = host, .guest = fsnotify_get_cookie() };
	mod_delayed_work(system_wq, &tidying, SETTLED);
	return &moves[last_move];
}

/* The file systems that the host's folders are. */
static bool is_hosts(const struct super_block *sb)
{
	return sb->s_magic == FUSE_SUPER_MAGIC || sb->s_magic == V9FS_MAGIC;
}

/* More of one file than this hear nothing. */
#define OTHERS	32

/* The other inodes that a 9p has for what this one is, as far as somebody watches them or has pages of them. */
struct others {
	struct inode *of;
	unsigned int count;
	struct inode *inodes[OTHERS];	/* referenced */
};

/* Called with the table of inodes locked. */
static int is_other(struct inode *inode, unsigned long number, void *data)
{
	struct others *others = data;

	if (inode == others->of || inode->i_ino != others->of->i_ino || inode_wrong_type(inode, others->of->i_mode))
		return 0;
	if (!READ_ONCE(inode->i_fsnotify_mask) && !inode->i_mapping->nrpages)
		return 0;
	if (others->count < OTHERS && igrab(inode))
		others->inodes[others->count++] = inode;
	/* On to the next. */
	return 0;
}

static void find_others(struct others *others, struct inode *of)
{
	others->of = of;
	others->count = 0;
	if (of->i_sb->s_magic == V9FS_MAGIC)
		find_inode_nowait(of->i_sb, of->i_ino, is_other, others);
}

static void drop_others(struct others *others)
{
	while (others->count)
		iput(others->inodes[--others->count]);
}

/* An event of the inode itself, which this one has heard, to the others. */
static void tell_other_inodes(struct inode *inode, u32 mask)
{
	struct others others;
	unsigned int i;

	find_others(&others, inode);
	for (i = 0; i < others.count; i++)
		fsnotify_inode(others.inodes[i], mask);
	drop_others(&others);
}

/* Asks the host how it stands with what the kernel knows already. */
static void refresh(struct vfsmount *mnt, struct dentry *dentry)
{
	struct path path = { .mnt = mnt, .dentry = dentry };
	struct inode *inode = d_inode(dentry);
	struct kstat stat;

	/* A 9p takes the size from the answer, which a write may have overtaken; who asks for it, asks himself. */
	if (inode && inode->i_sb->s_magic == V9FS_MAGIC && S_ISREG(inode->i_mode) && inode_is_open_for_write(inode))
		return;
	/* Who is gone has no answer, and keeps what he had. */
	(void)vfs_getattr(&path, &stat, STATX_BASIC_STATS, AT_STATX_FORCE_SYNC);
}

static void fresh(struct batch *batch, struct dentry *dentry)
{
	dput(batch->fresh);
	batch->fresh = dget(dentry);
}

/* The name leads here no longer; as for the kernel's own unlink and rename, nobody may be about to use it. */
static void forget(struct inode *folder, struct dentry *dentry)
{
	if (d_is_dir(dentry))
		shrink_dcache_parent(dentry);
	inode_lock_nested(folder, I_MUTEX_PARENT);
	d_drop(dentry);
	inode_unlock(folder);
}

/* The same, unless the host has there just what the kernel knows: of a 9p also the guest's own deeds are told, late, and a file that is
 * open would be another to who asks for it next. So it is asked for anew, and the old one put back if it is the same.
 */
static void forget_other(struct dentry *dir, struct dentry *dentry, const struct qstr *name)
{
	struct inode *folder = d_inode(dir), *inode = d_inode(dentry);
	struct dentry *now;

	forget(folder, dentry);
	if (folder->i_sb->s_magic != V9FS_MAGIC || !inode)
		return;
	now = lookup_positive_unlocked(name->name, dir, name->len);
	if (IS_ERR(now))
		return;
	if (d_inode(now)->i_ino == inode->i_ino && !inode_wrong_type(d_inode(now), inode->i_mode)) {
		inode_lock_nested(folder, I_MUTEX_PARENT);
		if (d_unhashed(dentry) && dentry->d_parent == dir) {
			d_drop(now);
			d_rehash(dentry);
		}
		inode_unlock(folder);
	}
	dput(now);
}

/* An event of a name: to who watches the folder. `about` is the inode that the name means, or the folder's where the
 * kernel has none: the event must belong to an object of the file system.
 */
static void tell_folder(u32 mask, struct inode *about, struct inode *folder, const struct qstr *name, u32 cookie)
{
	struct others others;
	unsigned int i;

	fsnotify_name(mask, about ?: folder, FSNOTIFY_EVENT_INODE, folder, name, cookie);
	find_others(&others, folder);
	for (i = 0; i < others.count; i++)
		fsnotify_name(mask, about ?: folder, FSNOTIFY_EVENT_INODE, others.inodes[i], name, cookie);
	drop_others(&others);
}

/* Or its last user would be here, and its watchers hear late that it is gone. */
static void let_go(struct batch *batch, struct dentry *dentry)
{
	unsigned int i;

	if (batch->fresh == dentry) {
		dput(batch->fresh);
		batch->fresh = NULL;
	}
	for (i = 0; i < MOVES; i++)
		if (arrived[i].dentry == dentry)
			drop_path(&arrived[i]);
}

/* A name went: deleted, or moved away. */
static void goes(struct batch *batch, struct dentry *known, const struct qstr *name, u32 mask, struct move *move)
{
	struct inode *folder = d_inode(batch->at.dentry);
	struct inode *inode = known && d_is_positive(known) ? igrab(d_inode(known)) : NULL;

	if (inode) {
		if (mask & FS_DELETE) {
			/* With how many names it has left: without one, its last dentry tells its watchers. */
			refresh(batch->at.mnt, known);
			if (!S_ISDIR(inode->i_mode))
				fsnotify_link_count(inode);
		}
		forget_other(batch->at.dentry, known, name);
		let_go(batch, known);
	}
	dput(known);
	tell_folder(mask, inode, folder, name, move ? move->guest : 0);
	if (move && inode) {
		if (!move->inode)
			move->mnt = mntget(batch->at.mnt);
		swap(move->inode, inode);
	}
	iput(inode);
}

/* Gives what was moved its new name, as of now: maybe the host has another there already, and the events about that are
 * still to come. Who uses the name asks the host first, because nothing vouches for it.
 */
static struct dentry *arrive(struct dentry *dir, const struct qstr *name, struct inode *inode)
{
	struct dentry *dentry, *other;

	inode_lock_nested(d_inode(dir), I_MUTEX_PARENT);
	/* Somebody may have asked for it meanwhile. */
	other = d_lookup(dir, name);
	if (other) {
		d_drop(other);
		dput(other);
	}
	dentry = d_alloc(dir, name);
	if (dentry) {
		ihold(inode);
		other = d_splice_alias(inode, dentry);
		if (other) {
			dput(dentry);
			dentry = other;
		}
	} else {
		dentry = ERR_PTR(-ENOMEM);
	}
	inode_unlock(d_inode(dir));
	return dentry;
}

/* A name came to be. Who has not looked at it cannot watch it, so that the host need not be asked. */
static void created(struct batch *batch, struct dentry *known, const struct qstr *name, u32 mask)
{
	struct dentry *dir = batch->at.dentry;
	struct inode *folder = d_inode(dir);

	if (known && d_is_negative(known)) {
		bool made;

		/* Unless it is being made here: then the host tells of that very deed. */
		inode_lock_nested(folder, I_MUTEX_PARENT);
		made = d_is_positive(known);
		if (!made)
			d_drop(known);
		inode_unlock(folder);
		if (!made) {
			dput(known);
			known = NULL;
		}
	}
	if (mask & FS_ATTRIB) {
		if (!known && fsnotify_sb_has_watchers(folder->i_sb)) {
			known = lookup_positive_unlocked(name->name, dir, name->len);
			if (IS_ERR(known))
				known = NULL;
			else
				fresh(batch, known);
		}
		if (known)
			fsnotify_link_count(d_inode(known));
	} else if (!known) {
		batch->last_unseen = (batch->last_unseen + 1) % UNSEEN;
		batch->unseen[batch->last_unseen].folder = folder;
		batch->unseen[batch->last_unseen].hash_len = name->hash_len;
	}
	tell_folder(mask & ~FS_ATTRIB, known ? d_inode(known) : NULL, folder, name, 0);
	dput(known);
}

/* A name came from elsewhere, maybe in place of another. */
static void moved_here(struct batch *batch, struct dentry *known, const struct qstr *name, u32 mask, struct move *move)
{
	struct dentry *dir = batch->at.dentry;
	struct inode *folder = d_inode(dir);
	struct dentry *before = NULL, *now = NULL;

	if (known) {
		if (d_is_positive(known)) {
			refresh(batch->at.mnt, known);
			before = dget(known);
		}
		forget_other(dir, known, name);
		let_go(batch, known);
	}
	dput(known);
	if (move->inode)
		now = arrive(dir, name, move->inode);
	else if (fsnotify_sb_has_watchers(folder->i_sb))
		now = lookup_positive_unlocked(name->name, dir, name->len);
	/* Or gone again. That is still to come. */
	if (IS_ERR(now))
		now = NULL;
	tell_folder(mask, now ? d_inode(now) : NULL, folder, name, move->guest);
	if (before && (!now || d_inode(before) != d_inode(now)))
		fsnotify_link_count(d_inode(before));
	if (now) {
		/* Not asked how it is now: it may be gone by now, and nobody is to hear of that before its turn. */
		fsnotify_inode(d_inode(now), FS_MOVE_SELF);
		tell_other_inodes(d_inode(now), FS_MOVE_SELF);
		last_arrived = (last_arrived + 1) % MOVES;
		drop_path(&arrived[last_arrived]);
		arrived[last_arrived] = (struct path){ .mnt = mntget(batch->at.mnt), .dentry = now };
	}
	drop_move(move);
	/* Whose name was taken and was its last tells its watchers now. */
	dput(before);
}

static bool is_unseen(struct batch *batch, struct inode *folder, const struct qstr *name)
{
	unsigned int i;

	for (i = 0; i < UNSEEN; i++)
		if (batch->unseen[i].folder == folder && batch->unseen[i].hash_len == name->hash_len)
			return true;
	return false;
}

/* A change of a file that no inode stands for, to who watches the folder. It is told as of a file of the folder, which must be one:
 * of this one nobody hears.
 */
static void tell_of_child(struct batch *batch, struct inode *folder, const struct qstr *name, u32 mask)
{
	if (fsnotify_inode_watches_children(folder))
		fsnotify(mask | FS_EVENT_ON_CHILD, folder, FSNOTIFY_EVENT_INODE, folder, name, batch->nobody, 0);
}

/* A change, to the other inodes of the folder and of the file, if that is known. */
static void tell_others(struct batch *batch, struct inode *folder, struct inode *inode, const struct qstr *name, u32 mask)
{
	struct others others;
	unsigned int i;

	find_others(&others, folder);
	for (i = 0; i < others.count; i++)
		tell_of_child(batch, others.inodes[i], name, mask);
	drop_others(&others);
	if (!inode)
		return;
	find_others(&others, inode);
	for (i = 0; i < others.count; i++) {
		if ((mask & FS_MODIFY) && S_ISREG(inode->i_mode))
			invalidate_inode_pages2(others.inodes[i]->i_mapping);
		fsnotify_inode(others.inodes[i], mask & CHANGES);
	}
	drop_others(&others);
}

/* Contents or attributes changed: told to who watches the folder, and to who watches the file. */
static void changes(struct batch *batch, struct dentry *known, const struct qstr *name, u32 mask)
{
	struct dentry *dir = batch->at.dentry;
	struct inode *folder = d_inode(dir);
	struct dentry *now = known;

	if (!known || d_is_negative(known)) {
		dput(known);
		if (!fsnotify_sb_has_watchers(folder->i_sb))
			return;
		/* A watch may have outlived what the kernel remembers of the name. */
		now = is_unseen(batch, folder, name) ? ERR_PTR(-ENOENT) :
						       lookup_positive_unlocked(name->name, dir, name->len);
		if (IS_ERR(now)) {
			tell_of_child(batch, folder, name, mask);
			tell_others(batch, folder, NULL, name, mask);
			return;
		}
		fresh(batch, now);
	} else if (now != batch->fresh) {
		refresh(batch->at.mnt, now);
		fresh(batch, now);
	}
	/* A change that leaves size and time as they were is one too. */
	if ((mask & FS_MODIFY) && d_is_reg(now))
		invalidate_inode_pages2(d_inode(now)->i_mapping);
	fsnotify_dentry(now, mask & CHANGES);
	tell_others(batch, folder, d_inode(now), name, mask);
	dput(now);
}

/* Something was lost: nothing that is remembered of this file system is to be believed. What is in use stays in use.
 * With `tell`, who watches is told to look again: no module can say IN_Q_OVERFLOW to other people's queues, so that whatever
 * is watched has a change of its attributes.
 */
static void doubt(const struct path *path, bool tell)
{
	struct super_block *sb = path->dentry->d_sb;
	struct inode *inode, *held = NULL;

	/* FUSE keeps no inode that has no dentry and no user: these go with theirs. */
	shrink_dcache_sb(sb);
	spin_lock(&sb->s_inode_list_lock);
	list_for_each_entry(inode, &sb->s_inodes, i_sb_list) {
		struct dentry *alias;

		if (!igrab(inode))
			continue;
		spin_unlock(&sb->s_inode_list_lock);
		/* Only now, when the list's next place is held by another. */
		iput(held);
		held = inode;
		inode_maybe_inc_iversion(inode, true);
		if (S_ISREG(inode->i_mode))
			invalidate_inode_pages2(inode->i_mapping);
		alias = d_find_alias(inode);
		if (alias) {
			refresh(path->mnt, alias);
			if (!IS_ROOT(alias) && !d_mountpoint(alias))
				d_drop(alias);
			dput(alias);
		}
		if (tell)
			fsnotify_inode(inode, FS_ATTRIB);
		cond_resched();
		spin_lock(&sb->s_inode_list_lock);
	}
	spin_unlock(&sb->s_inode_list_lock);
	iput(held);
}

static bool is_name(const char *text, u32 length)
{
	if (!length || length > NAME_MAX || memchr(text, '/', length) || memchr(text, 0, length))
		return false;
	return !(length == 1 && text[0] == '.') && !(length == 2 && text[0] == '.' && text[1] == '.');
}

/* From a folder to one below it. Links are not followed: the host names a folder as it really is. */
static int walk(struct path *at, char *below)
{
	char *part;

	while ((part = strsep(&below, "/"))) {
		struct qstr name = QSTR_INIT(part, strlen(part));
		struct dentry *next;
		int error;

		if (!is_name(name.name, name.len))
			return -EINVAL;
		next = d_hash_and_lookup(at->dentry, &name);
		if (IS_ERR_OR_NULL(next) || d_is_negative(next)) {
			if (!IS_ERR_OR_NULL(next))
				dput(next);
			next = lookup_positive_unlocked(part, at->dentry, name.len);
			if (IS_ERR(next))
				return -ENOENT;
		}
		dput(at->dentry);
		at->dentry = next;
		/* Another file system of the host begins here, maybe. */
		error = follow_down(at, LOOKUP_DIRECTORY);
		if (error || !d_is_dir(at->dentry))
			return -ENOENT;
	}
	return 0;
}

static void leave(struct batch *batch)
{
	if (batch->at.dentry)
		path_put(&batch->at);
	memset(&batch->at, 0, sizeof(batch->at));
}

/*
 * The server takes privileges of a file away when it is written to, so the kernel need not ask for them before each write. It notes
 * that for the device's first file system alone, not for a share's, which is mounted below it.
 */
static void inherit(const struct path *root)
{
	struct super_block *sb = root->dentry->d_sb;
	struct path above = *root;

	if (sb->s_flags & SB_NOSEC)
		return;
	path_get(&above);
	if (follow_up(&above) && above.dentry->d_sb->s_magic == FUSE_SUPER_MAGIC &&
	    (above.dentry->d_sb->s_flags & SB_NOSEC)) {
		down_write(&sb->s_umount);
		sb->s_flags |= SB_NOSEC;
		up_write(&sb->s_umount);
	}
	path_put(&above);
}

/* Finds the folder, unless the event before was there too. -ENOENT: it is gone, and so is who watched it. */
static int enter(struct batch *batch, const struct head *head, const char *below)
{
	struct file *file;
	int error = 0;

	if (batch->at.dentry && batch->root == head->root && batch->length == head->below &&
	    !memcmp(batch->below, below, head->below))
		return 0;
	leave(batch);
	if (head->below >= PATH_MAX)
		return -EINVAL;
	file = fget_raw(head->root);
	if (!file)
		return -EBADF;
	if (!d_is_dir(file->f_path.dentry) || !is_hosts(file->f_path.dentry->d_sb)) {
		fput(file);
		return -EINVAL;
	}
	batch->at = file->f_path;
	path_get(&batch->at);
	fput(file);
	inherit(&batch->at);
	batch->root = head->root;
	batch->below = below;
	batch->length = head->below;
	if (head->below) {
		memcpy(batch->path, below, head->below);
		batch->path[head->below] = 0;
		/* A zero in it is no path. */
		error = strlen(batch->path) == head->below ? walk(&batch->at, batch->path) : -EINVAL;
	}
	if (!error && !is_hosts(batch->at.dentry->d_sb))
		error = -ENOENT;
	if (error)
		leave(batch);
	else
		refresh(batch->at.mnt, batch->at.dentry);
	return error;
}

static int deliver(struct batch *batch, const struct head *head, const char *texts)
{
	struct qstr name = QSTR_INIT(batch->name, head->name);
	u32 kind = head->mask & ~FS_ISDIR;
	struct dentry *known;
	struct inode *folder;
	int error;

	if (kind != FS_Q_OVERFLOW && kind != LINK && (!(kind & KINDS) || !is_power_of_2(kind)))
		return -EINVAL;
	if (head->name) {
		if (!is_name(texts + head->below, head->name))
			return -EINVAL;
		memcpy(batch->name, texts + head->below, head->name);
		/* inotify copies to the zero. */
		batch->name[head->name] = 0;
	} else if (kind != FS_Q_OVERFLOW && kind != FS_ATTRIB) {
		return -EINVAL;
	}
	error = enter(batch, head, texts);
	if (error)
		return error == -ENOENT ? 0 : error;
	folder = d_inode(batch->at.dentry);
	if (kind == FS_Q_OVERFLOW) {
		doubt(&batch->at, head->cookie);
		return 0;
	}
	if (!head->name) {
		fsnotify_dentry(batch->at.dentry, FS_ATTRIB);
		tell_other_inodes(folder, FS_ATTRIB);
		return 0;
	}
	known = d_hash_and_lookup(batch->at.dentry, &name);
	if (IS_ERR(known))
		return PTR_ERR(known);
	if ((kind & CHANGES) && kind != LINK) {
		changes(batch, known, &name, head->mask);
		return 0;
	}
	/* Or a list of the folder that was kept is taken for true: its time may be the same. */
	inode_maybe_inc_iversion(folder, true);
	if (kind & FS_CREATE)
		created(batch, known, &name, head->mask);
	else if (kind & FS_MOVED_TO)
		moved_here(batch, known, &name, head->mask, move_for(head->cookie));
	else
		goes(batch, known, &name, head->mask, kind & FS_MOVED_FROM ? move_for(head->cookie) : NULL);
	/* Its path leads elsewhere now, maybe to what the next event is about. */
	if (head->mask & FS_ISDIR)
		leave(batch);
	return 0;
}

/* Delivers one record after the other; returns the bytes of those that were delivered. */
static ssize_t device_write(struct file *file, const char __user *from, size_t count, loff_t *offset)
{
	struct batch *batch;
	struct head head;
	size_t done = 0;
	int error = 0;
	char *bytes;

	if (count > LONGEST)
		return -EMSGSIZE;
	batch = kzalloc(sizeof(*batch), GFP_KERNEL);
	if (!batch)
		return -ENOMEM;
	bytes = vmemdup_user(from, count);
	if (IS_ERR(bytes)) {
		kfree(batch);
		return PTR_ERR(bytes);
	}
	batch->nobody = file_inode(file);
	mutex_lock(&writing);
	while (done < count) {
		error = -EINVAL;
		if (count - done < sizeof(head))
			break;
		memcpy(&head, bytes + done, sizeof(head));
		if (head.below + head.name > count - done - sizeof(head))
			break;
		error = -EINTR;
		if (fatal_signal_pending(current))
			break;
		error = deliver(batch, &head, bytes + done + sizeof(head));
		if (error)
			break;
		done += sizeof(head) + head.below + head.name;
		cond_resched();
	}
	mutex_unlock(&writing);
	dput(batch->fresh);
	leave(batch);
	kvfree(bytes);
	kfree(batch);
	return done ?: error;
}

/* The agent alone: it opens the device at boot and never closes it. */
static int device_open(struct inode *inode, struct file *file)
{
	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	if (atomic_cmpxchg(&opened, 0, 1))
		return -EBUSY;
	return stream_open(inode, file);
}

static int device_release(struct inode *inode, struct file *file)
{
	cancel_delayed_work_sync(&tidying);
	tidy(NULL);
	atomic_set(&opened, 0);
	return 0;
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.open = device_open,
	.write = device_write,
	.release = device_release,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "slipway-fsnotify",
	.fops = &operations,
	.mode = 0600,
};
module_misc_device(device);

MODULE_DESCRIPTION("File events of the host, as Slipway's agent hears of them");
MODULE_LICENSE("GPL");
