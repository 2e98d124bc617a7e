//! Logind tells before a sleep, too. It does so on the system's bus, which not every Linux has.

use futures_util::StreamExt;
use slipway_vsock::sleep::Event;

#[zbus::proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1",
    gen_blocking = false
)]
trait Manager {
    /// True before a sleep, false after it.
    #[zbus(signal)]
    fn prepare_for_sleep(&self, start: bool) -> zbus::Result<()>;
}

/// Tells what it says, until it says nothing any more. An error comes before the first word only.
pub(super) async fn listen(tell: impl Fn(Event)) -> zbus::Result<()> {
    let bus = zbus::connection::Builder::system()?.build().await?;
    let manager = ManagerProxy::new(&bus).await?;
    let mut signals = manager.receive_prepare_for_sleep().await?;
    while let Some(signal) = signals.next().await {
        match signal.args() {
            Ok(said) => tell(if *said.start() { Event::Sleeps } else { Event::Woke }),
            Err(error) => tracing::warn!(%error, "logind says something else than it used to"),
        }
    }
    Ok(())
}
