//! A panel's part in it: knows the tray icons that register, opens their menus, and hears the notifications.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use zbus::{
    blocking::{Connection, Proxy, connection::Builder},
    interface,
    message::Header,
    zvariant::{OwnedValue, Value},
};

use crate::webdriver::eventually;

type Shared<T> = Arc<Mutex<T>>;

fn read<T: Clone>(shared: &Shared<T>) -> T {
    shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Who registered: the bus name and the path.
#[derive(Default)]
struct Watcher(Shared<Vec<(String, String)>>);

#[interface(name = "org.kde.StatusNotifierWatcher")]
impl Watcher {
    fn register_status_notifier_item(&mut self, service: &str, #[zbus(header)] header: Header<'_>) {
        let sender = header.sender().map(ToString::to_string).unwrap_or_default();
        // A path on the sender's own name, or a name of its own.
        let item = match service.strip_prefix('/') {
            Some(_) => (sender, service.to_owned()),
            None => (service.to_owned(), "/StatusNotifierItem".to_owned()),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(item);
    }

    fn register_status_notifier_host(&self, _service: &str) {}

    #[zbus(property)]
    fn registered_status_notifier_items(&self) -> Vec<String> {
        read(&self.0).into_iter().map(|(name, path)| format!("{name}{path}")).collect()
    }

    #[zbus(property)]
    fn is_status_notifier_host_registered(&self) -> bool {
        true
    }

    #[zbus(property)]
    fn protocol_version(&self) -> i32 {
        0
    }
}

/// What was told: title and body.
#[derive(Default)]
struct Notifications(Shared<Vec<(String, String)>>);

#[interface(name = "org.freedesktop.Notifications")]
impl Notifications {
    #[expect(clippy::too_many_arguments, reason = "the interface's own")]
    fn notify(
        &mut self,
        _app: &str,
        _replaces: u32,
        _icon: &str,
        summary: &str,
        body: &str,
        _actions: Vec<String>,
        _hints: HashMap<String, Value<'_>>,
        _timeout: i32,
    ) -> u32 {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.push((summary.to_owned(), body.to_owned()));
        told.len() as u32
    }

    fn get_capabilities(&self) -> Vec<String> {
        vec!["body".into()]
    }

    fn get_server_information(&self) -> (String, String, String, String) {
        ("test".into(), "slipway".into(), "1".into(), "1.2".into())
    }

    fn close_notification(&self, _id: u32) {}
}

/// The panel. It must be there before the program is.
pub(crate) struct Panel {
    connection: Connection,
    items: Shared<Vec<(String, String)>>,
    told: Shared<Vec<(String, String)>>,
}

/// One entry of a menu, with those below it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    id: i32,
    pub(crate) label: String,
    pub(crate) below: Vec<Entry>,
}

/// A layout as the bus carries it.
type Layout = (i32, HashMap<String, OwnedValue>, Vec<OwnedValue>);

impl Panel {
    pub(crate) fn new(bus: &str) -> Self {
        let (watcher, notifications) = (Watcher::default(), Notifications::default());
        let (items, told) = (Arc::clone(&watcher.0), Arc::clone(&notifications.0));
        let connection = Builder::address(bus)
            .and_then(|b| b.name("org.kde.StatusNotifierWatcher"))
            .and_then(|b| b.name("org.freedesktop.Notifications"))
            .and_then(|b| b.serve_at("/StatusNotifierWatcher", watcher))
            .and_then(|b| b.serve_at("/org/freedesktop/Notifications", notifications))
            .and_then(Builder::build)
            .expect("on the bus");
        Self { connection, items, told }
    }

    /// What was told so far: title and body.
    pub(crate) fn told(&self) -> Vec<(String, String)> {
        read(&self.told)
    }

    /// Whether a tray is there that answers.
    pub(crate) fn has_tray(&self) -> bool {
        self.item().is_some_and(|(name, path)| self.property(&name, &path, "Status").is_some())
    }

    fn item(&self) -> Option<(String, String)> {
        read(&self.items).pop()
    }

    fn property(&self, name: &str, path: &str, property: &str) -> Option<OwnedValue> {
        let proxy =
            Proxy::new(&self.connection, name.to_owned(), path.to_owned(), "org.kde.StatusNotifierItem")
                .ok()?;
        proxy.get_property(property).ok()
    }

    /// The icon's file.
    pub(crate) fn icon(&self) -> Vec<u8> {
        let (name, path) = self.item().expect("a tray");
        let icon = self.property(&name, &path, "IconName").expect("a name");
        let file = String::try_from(icon).expect("text");
        std::fs::read(&file).or_else(|_| std::fs::read(format!("{file}.png"))).unwrap_or_default()
    }

    fn menu(&self) -> Option<Proxy<'_>> {
        let (name, path) = self.item()?;
        let menu = self.property(&name, &path, "Menu")?;
        let menu = zbus::zvariant::OwnedObjectPath::try_from(menu).ok()?;
        Proxy::new(&self.connection, name, menu, "com.canonical.dbusmenu").ok()
    }

    /// The whole menu as it is now.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let Some(menu) = self.menu() else { return Vec::new() };
        let answer: zbus::Result<(u32, Layout)> =
            menu.call("GetLayout", &(0_i32, -1_i32, Vec::<String>::new()));
        answer.map(|(_, layout)| entry(layout).below).unwrap_or_default()
    }

    /// Waits for an entry whose label begins so.
    #[track_caller]
    pub(crate) fn wait_entry(&self, label: &str, patience: Duration) -> Entry {
        eventually(&format!("the tray's menu has `{label}`"), patience, || {
            self.entries().into_iter().find(|e| e.label.starts_with(label))
        })
    }

    /// Chooses an entry by the labels that lead to it.
    #[track_caller]
    pub(crate) fn choose(&self, labels: &[&str]) {
        let chosen = eventually(&format!("the tray's menu has {labels:?}"), Duration::from_secs(20), || {
            let mut at = self.entries();
            let mut found = None;
            for label in labels {
                let entry = at.into_iter().find(|e| e.label.starts_with(label))?;
                at = entry.below.clone();
                found = Some(entry);
            }
            found
        });
        let menu = self.menu().expect("a menu");
        let done: zbus::Result<()> = menu.call("Event", &(chosen.id, "clicked", Value::from(""), 0_u32));
        done.expect("chosen");
    }
}

fn entry((id, properties, below): Layout) -> Entry {
    let label = properties.get("label").and_then(|l| String::try_from(l.clone()).ok()).unwrap_or_default();
    let below = below.into_iter().filter_map(|value| Layout::try_from(value).ok()).map(entry).collect();
    // Menus mark the letter to press; panels take the mark away.
    Entry { id, label: label.replace('_', ""), below }
}
