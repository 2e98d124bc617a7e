//! Says for which processor it was built, on which the kernel says that it runs, and with whose rights.

use rustix::{process::geteuid, system::uname};

fn main() {
    let user = geteuid().as_raw();
    println!("{} {} euid {user}", std::env::consts::ARCH, uname().machine().to_string_lossy());
}
