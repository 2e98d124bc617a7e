//! The data disk: what it takes, giving back what it need not take, and letting it grow further.

use slipway_api::{DiskUsage, State};

use crate::{
    args::DiskVerb,
    reach::Session,
    say::{Fail, clean},
    status::bytes,
};

/// Shows or changes what the data disk takes.
///
/// # Errors
/// A trim of a machine that does not run; a size that is none, or smaller than the disk is.
pub(crate) async fn disk(session: &Session, what: &DiskVerb) -> Result<u8, Fail> {
    match what {
        DiskVerb::Usage { json } => usage(session, *json).await,
        DiskVerb::Trim { json } => trim(session, *json).await,
        DiskVerb::Resize { size } => resize(session, size).await,
    }
}

async fn usage(session: &Session, json: bool) -> Result<u8, Fail> {
    let usage = session.ensured().await?.disk().await?;
    if json {
        session.say.json(&usage)?;
        return Ok(0);
    }
    session.say.data(&text(&usage))?;
    for problem in &usage.missing {
        session.say.notice(&problem.to_string());
        if let Some(hint) = &problem.hint {
            session.say.hint(hint);
        }
    }
    if usage.guest_bytes.is_none() && usage.missing.is_empty() {
        session.say.talk("the machine does not run; once it does, it says what is in there");
    }
    Ok(0)
}

fn text(usage: &DiskUsage) -> String {
    let disk = clean(&usage.data_disk.to_string_lossy());
    let mut text = format!(
        "disk       {disk}\non host    {} of at most {}\n",
        bytes(usage.host_bytes),
        bytes(usage.limit_bytes)
    );
    if let (Some(used), Some(free)) = (usage.guest_bytes, usage.guest_free_bytes) {
        text.push_str(&format!("in guest   {} used, {} free\n", bytes(used), bytes(free)));
    }
    if !usage.holdings.is_empty() {
        text.push_str(&format!("\n{:<11}  {:>5}  {:>9}  {:>11}\n", "KIND", "COUNT", "SIZE", "RECLAIMABLE"));
    }
    for holding in &usage.holdings {
        let (kind, count) = (clean(&holding.kind), holding.count);
        let (all, free) = (bytes(holding.bytes), bytes(holding.reclaimable_bytes));
        text.push_str(&format!("{kind:<11}  {count:>5}  {all:>9}  {free:>11}\n"));
    }
    text
}

async fn trim(session: &Session, json: bool) -> Result<u8, Fail> {
    let api = session.ensured().await?;
    session.say.talk("giving back what the machine no longer needs");
    let done = api.trim_disk().await?;
    if json {
        session.say.json(&done)?;
        return Ok(0);
    }
    let given = done.before_bytes.saturating_sub(done.after_bytes);
    session.say.data(&format!(
        "{} given back; the disk takes {} on this computer\n",
        bytes(given),
        bytes(done.after_bytes)
    ))?;
    Ok(0)
}

async fn resize(session: &Session, size: &str) -> Result<u8, Fail> {
    let api = session.ensured().await?;
    let limit = api.resize_disk(size).await?;
    session.say.talk(&format!("the disk may grow to {}", clean(&limit.value)));
    if !matches!(api.status().await?.state, State::Stopped | State::Failed) {
        session.say.hint("it holds from the next start: `slipway restart`");
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use slipway_api::DiskHolding;

    use super::*;

    #[test]
    fn the_disk_is_shown_from_both_sides() {
        let kind = |kind: &str, count, bytes, reclaimable_bytes| DiskHolding {
            kind: kind.into(),
            count,
            bytes,
            reclaimable_bytes,
        };
        let mut usage = DiskUsage {
            data_disk: "/h/data.raw".into(),
            host_bytes: 1_200_000_000,
            limit_bytes: 100_000_000_000,
            guest_bytes: None,
            guest_free_bytes: None,
            holdings: Vec::new(),
            missing: Vec::new(),
        };
        let stopped = "disk       /h/data.raw\non host    1.2 GB of at most 100.0 GB\n";
        assert_eq!(text(&usage), stopped);
        usage.guest_bytes = Some(900_000_000);
        usage.guest_free_bytes = Some(97_000_000_000);
        usage.holdings = vec![kind("images", 12, 800_000_000, 300_000), kind("build cache", 0, 0, 0)];
        let expected = "in guest   900.0 MB used, 97.0 GB free\n\n\
            KIND         COUNT       SIZE  RECLAIMABLE\n\
            images          12   800.0 MB     300.0 kB\n\
            build cache      0    0 bytes      0 bytes\n";
        assert_eq!(text(&usage), format!("{stopped}{expected}"));
    }
}
