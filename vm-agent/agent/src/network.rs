//! The guest's network: static where the host decides it, because a lease would only cost time, and else by [`dhcp`].

pub(crate) mod dhcp;

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

// musl's requests are signed, and the constants are not: the casts change nothing but the type.
use libc::Ioctl;

/// How the guest is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) resolver: Ipv4Addr,
    /// Longest packet, where it is not the card's own.
    pub(crate) mtu: Option<u32>,
}

/// Who says how the guest is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The host, beforehand.
    Host(Network),
    /// The network itself.
    Network,
}

impl Asked {
    /// From `slipway.net=ADDRESS/PREFIX,GATEWAY,RESOLVER`, or `slipway.net=dhcp`, of the kernel's command line, where a driver needs another
    /// than QEMU's.
    pub(crate) fn from_cmdline(cmdline: &str) -> Self {
        let mut words = cmdline.split_whitespace().filter_map(|word| word.strip_prefix("slipway.net="));
        match words.next() {
            Some("dhcp") => Self::Network,
            value => Self::Host(value.and_then(Network::from_word).unwrap_or_default()),
        }
    }
}

impl Default for Network {
    /// What QEMU's user network expects.
    fn default() -> Self {
        Self {
            address: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 24,
            gateway: Ipv4Addr::new(10, 0, 2, 2),
            resolver: Ipv4Addr::new(10, 0, 2, 3),
            mtu: None,
        }
    }
}

impl Network {
    fn from_word(value: &str) -> Option<Self> {
        let mut parts = value.split(',');
        let (address, prefix) = parts.next()?.split_once('/')?;
        let prefix = prefix.parse().ok().filter(|p| *p <= 32)?;
        Some(Self {
            address: address.parse().ok()?,
            prefix,
            gateway: parts.next()?.parse().ok()?,
            resolver: parts.next()?.parse().ok()?,
            mtu: None,
        })
    }

    /// Brings `lo` and `interface` up and routes everything through the gateway, and through no other that was before.
    pub(crate) fn apply(&self, interface: &str) -> io::Result<()> {
        let socket = socket()?;
        up(&socket, "lo")?;
        if let Some(mtu) = self.mtu {
            set_mtu(&socket, interface, mtu)?;
        }
        let mask = Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0));
        set(&socket, interface, libc::SIOCSIFADDR as Ioctl, self.address)?;
        set(&socket, interface, libc::SIOCSIFNETMASK as Ioctl, mask)?;
        up(&socket, interface)?;
        unroute(&socket)?;
        route(&socket, self.gateway)
    }
}

/// Brings `interface` up, without an address.
pub(crate) fn bring_up(interface: &str) -> io::Result<()> {
    up(&socket()?, interface)
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers; the result is checked.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn request(interface: &str) -> libc::ifreq {
    // SAFETY: zeroes are a valid value of this plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

fn sockaddr(address: Ipv4Addr) -> libc::sockaddr {
    let inet = libc::sockaddr_in {
        sin_family: libc::AF_INET as _,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(address).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: both are plain C structures of 16 bytes, and the kernel reads the one as the other.
    unsafe { std::mem::transmute(inet) }
}

fn named(what: &str, interface: &str) -> io::Error {
    let error = io::Error::last_os_error();
    io::Error::new(error.kind(), format!("failed to set the {what} of {interface}: {error}"))
}

fn set(socket: &OwnedFd, interface: &str, what: Ioctl, address: Ipv4Addr) -> io::Result<()> {
    let mut request = request(interface);
    request.ifr_ifru.ifru_addr = sockaddr(address);
    // SAFETY: these requests read an `ifreq`, which lives until the call is over.
    if unsafe { libc::ioctl(socket.as_raw_fd(), what, &raw mut request) } < 0 {
        return Err(named("address", interface));
    }
    Ok(())
}

fn set_mtu(socket: &OwnedFd, interface: &str, mtu: u32) -> io::Result<()> {
    let mut request = request(interface);
    request.ifr_ifru.ifru_mtu = i32::try_from(mtu).map_err(io::Error::other)?;
    // SAFETY: the request reads an `ifreq`, which lives until the call is over.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFMTU as Ioctl, &raw mut request) } < 0 {
        return Err(named("longest packet", interface));
    }
    Ok(())
}

fn up(socket: &OwnedFd, interface: &str) -> io::Result<()> {
    let mut request = request(interface);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request reads an `ifreq`, which lives until the call is over.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as Ioctl, &raw mut request) } < 0 {
        return Err(named("state", interface));
    }
    Ok(())
}

/// The default route through `gateway`.
fn default_route(gateway: Ipv4Addr) -> libc::rtentry {
    // SAFETY: zeroes are a valid value of this plain C structure.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = sockaddr(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = sockaddr(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = sockaddr(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    route
}

/// Takes the default route away; that there is none is usual.
fn unroute(socket: &OwnedFd) -> io::Result<()> {
    let mut route = default_route(Ipv4Addr::UNSPECIFIED);
    // Whatever its gateway is.
    route.rt_flags = libc::RTF_UP;
    // SAFETY: the request reads an `rtentry`, which lives until the call is over.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCDELRT as Ioctl, &raw const route) } < 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ESRCH) {
            return Err(io::Error::new(error.kind(), format!("failed to take the old route away: {error}")));
        }
    }
    Ok(())
}

fn route(socket: &OwnedFd, gateway: Ipv4Addr) -> io::Result<()> {
    let route = default_route(gateway);
    // SAFETY: the request reads an `rtentry`, which lives until the call is over.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT as Ioctl, &raw const route) } < 0 {
        let error = io::Error::last_os_error();
        return Err(io::Error::new(error.kind(), format!("failed to route through {gateway}: {error}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_may_name_another_network() {
        let Asked::Host(other) =
            Asked::from_cmdline("quiet slipway.net=192.168.64.9/20,192.168.64.1,1.1.1.1 x")
        else {
            panic!("the host says it");
        };
        assert_eq!((other.address, other.prefix), (Ipv4Addr::new(192, 168, 64, 9), 20));
        assert_eq!(other.resolver, Ipv4Addr::new(1, 1, 1, 1));
        for wrong in [
            "",
            "slipway.net=",
            "slipway.net=1.2.3.4,1.2.3.5,1.1.1.1",
            "slipway.net=1.2.3.4/33,1.2.3.5,1.1.1.1",
        ] {
            assert_eq!(Asked::from_cmdline(wrong), Asked::Host(Network::default()), "{wrong}");
        }
        assert_eq!(Asked::from_cmdline("quiet slipway.net=dhcp"), Asked::Network);
    }
}
