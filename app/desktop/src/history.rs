//! The history of builds. BuildKit tells it over gRPC inside a connection of the engine; buildx speaks that, and knows the
//! builds' names from what it wrote on this computer. So docker's own client is asked: the person's, or Slipway's.

use std::{
    collections::HashSet,
    env,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value;
use slipway_api::{Problem, client::ClientError, paths::docker_host};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
    time::timeout,
};

use crate::{
    bridge::{Bridge, LONGEST_ANSWER},
    system,
};

/// How long buildx may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may tell the steps of a build. One that goes on has no end to wait for.
const TELLING: Duration = Duration::from_secs(10);

/// What the history is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HistoryVerb {
    /// All builds, a JSON object a line.
    Ls,
    /// One build, as JSON.
    Inspect,
    /// One build's steps and their output, as BuildKit's own JSON lines.
    Logs,
    /// Forgets one build.
    Rm,
}

impl Bridge {
    /// Asks buildx for the history of the engine's builds, and gives what it said. Dropping the future ends buildx.
    ///
    /// # Errors
    /// A `reference` that is none, no docker client with buildx on this computer, and what buildx said against it.
    pub async fn build_history(&self, verb: HistoryVerb, reference: Option<&str>) -> Result<String, Problem> {
        let mut words: Vec<&str> = match verb {
            HistoryVerb::Ls => vec!["ls", "--no-trunc", "--format", "json"],
            HistoryVerb::Inspect => vec!["inspect", "--format", "json"],
            HistoryVerb::Logs => vec!["logs", "--progress", "rawjson"],
            HistoryVerb::Rm => vec!["rm"],
        };
        match (verb, reference) {
            (HistoryVerb::Ls, _) => {}
            (_, Some(id)) if is_id(id) => words.push(id),
            _ => return Err(Problem::new("bad-request", "the build is not named")),
        }
        let said = self.history(verb, &words).await?;
        if verb != HistoryVerb::Ls || !records(&said).any(|(_, record)| record["status"] == FAILED) {
            return Ok(said);
        }
        // The list has one word for what failed and for what was cancelled. A filter knows them apart; a buildx without it leaves
        // them as they are.
        words.extend(["--filter", "status=canceled"]);
        let cancelled = self.history(verb, &words).await.unwrap_or_default();
        Ok(with_cancelled(&said, &cancelled))
    }

    async fn history(&self, verb: HistoryVerb, words: &[&str]) -> Result<String, Problem> {
        let mut command = self.buildx().await?;
        command.arg("history").args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let patience = if verb == HistoryVerb::Logs { TELLING } else { PATIENCE };
        run(command.kill_on_drop(true), verb, patience).await
    }

    /// Docker's buildx on this machine's builder.
    pub(crate) async fn buildx(&self) -> Result<Command, Problem> {
        let docker = docker(self.tools()).ok_or_else(|| {
            Problem::new("docker-missing", "there is no docker client on this computer")
                .hint("`slipway config set docker.install-cli true`, then `slipway restart`")
        })?;
        let status = self.api().status().await.map_err(ClientError::into_problem)?;
        let mut command = Command::new(docker);
        for name in ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "BUILDX_BUILDER"] {
            command.env_remove(name);
        }
        // By its context, under whose name buildx keeps what it knows of its builds; else by its socket.
        match status.docker.filter(|docker| docker.problem.is_none()) {
            Some(docker) => {
                command.args(["--context", &docker.context, "buildx", "--builder", &docker.context]);
            }
            None => {
                command.env("DOCKER_HOST", docker_host(&status.socket));
                command.args(["buildx", "--builder", "default"]);
            }
        }
        // What lies below the folder that buildx runs in, it tells relative to that. Nobody builds from here.
        command.current_dir("/dev");
        Ok(command)
    }
}

/// The list's word for a build that did not end well.
const FAILED: &str = "Error";

/// Lines of the list, each with what it says.
fn records(list: &str) -> impl Iterator<Item = (&str, Value)> {
    list.lines().map(|line| (line, serde_json::from_str(line).unwrap_or_default()))
}

/// The list, where those of `cancelled` are called so.
fn with_cancelled(list: &str, cancelled: &str) -> String {
    let cancelled: HashSet<Value> =
        records(cancelled).map(|(_, record)| record["ref"].clone()).filter(Value::is_string).collect();
    let told = records(list).map(|(line, mut record)| {
        if record["status"] != FAILED || !cancelled.contains(&record["ref"]) {
            return format!("{line}\n");
        }
        record["status"] = "Canceled".into();
        format!("{record}\n")
    });
    told.collect()
}

async fn run(command: &mut Command, verb: HistoryVerb, patience: Duration) -> Result<String, Problem> {
    let failed = |why: String| Problem::new("buildx-failed", "docker's buildx was not asked").because(why);
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed("it has no output".into()));
    };
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let reading = async {
        tokio::join!(read(out, &mut said), read(err, &mut complained));
        child.wait().await
    };
    let ended = timeout(patience, reading).await;
    // Steps are told as progress, which goes where errors go.
    if verb == HistoryVerb::Logs {
        said.append(&mut complained);
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match ended {
        Ok(Ok(status)) if status.success() => Ok(text(&said)),
        Err(_) if verb == HistoryVerb::Logs => Ok(text(&said)),
        Err(_) => Err(failed(format!("it did not end within {} s", patience.as_secs()))),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Ok(Ok(_)) if verb == HistoryVerb::Logs => Err(refusal(&text(&said))),
        Ok(Ok(_)) => Err(refusal(&text(&complained))),
    }
}

/// What is longer is cut: a page could not show it either.
async fn read(from: impl AsyncRead + Unpin, into: &mut Vec<u8>) {
    // What was read before an error is what there is.
    let _ = from.take(LONGEST_ANSWER as u64).read_to_end(into).await;
}

/// The last line that is no step, without the word that it begins with.
pub(crate) fn refusal(complained: &str) -> Problem {
    if complained.contains("is not a docker command") || complained.contains("unknown command") {
        return Problem::new("buildx-missing", "docker has no buildx that keeps a history of builds")
            .hint("buildx 0.20 or newer has one");
    }
    let mut lines =
        complained.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('{'));
    let last = lines.next_back().unwrap_or("it did not say why");
    Problem::new("buildx-refused", last.trim_start_matches("ERROR: "))
}

/// BuildKit's names for builds, and no option of buildx.
fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The first `docker` in the `PATH`, or the one in Slipway's own folder.
fn docker(tools: Option<&Path>) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let name = format!("docker{}", env::consts::EXE_SUFFIX);
    let mut files = env::split_paths(&path).chain(tools.map(Path::to_owned)).map(|dir| dir.join(&name));
    files.find(|file| system::is_program(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_builds_own_name_is_passed_to_buildx() {
        assert!(is_id("76xnafpgx9u97p0fa8k8klmi7"));
        for id in ["", "--all", "-h", "a b", "../x", "a/b", "ä", &"x".repeat(65)] {
            assert!(!is_id(id), "{id}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_buildxs_last_words() {
        let told = |text: &str| (refusal(text).code, refusal(text).message);
        let pair = |code: &str, message: &str| (code.to_owned(), message.to_owned());
        assert_eq!(told("warn\nERROR: no record found\n"), pair("buildx-refused", "no record found"));
        assert_eq!(told("{\"vertexes\":[]}\n"), pair("buildx-refused", "it did not say why"));
        assert_eq!(told("docker: 'buildx' is not a docker command.\n").0, "buildx-missing");
    }

    #[test]
    fn a_cancelled_build_is_not_called_a_failed_one() {
        let line = |id: &str, status: &str| format!("{{\"ref\":\"b/b/{id}\",\"status\":\"{status}\"}}\n");
        let list =
            [line("one", "Error"), line("two", "Completed"), line("three", "Error"), "no JSON\n".into()];
        let told = with_cancelled(&list.concat(), &format!("{}warn\n", line("three", "Error")));
        assert_eq!(
            told,
            [&list[0], &list[1], &line("three", "Canceled"), &list[3]].map(String::as_str).concat()
        );
        assert_eq!(with_cancelled(&list.concat(), ""), list.concat());
    }

    fn program(script: &str) -> Command {
        let mut sh = Command::new("sh");
        sh.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        sh.kill_on_drop(true);
        sh
    }

    #[tokio::test]
    async fn steps_of_a_build_that_goes_on_are_what_was_told_until_now() {
        let mut endless = program("echo '{\"vertexes\":[]}' >&2; exec sleep 600");
        let said =
            run(&mut endless, HistoryVerb::Logs, Duration::from_secs(2)).await.expect("as far as it is");
        assert_eq!(said, "{\"vertexes\":[]}\n");
        let unended = run(&mut endless, HistoryVerb::Ls, Duration::from_millis(100)).await;
        assert_eq!(unended.expect_err("no end").code, "buildx-failed");
    }

    #[tokio::test]
    async fn what_it_says_is_given_and_what_it_refuses_is_a_problem() {
        let said = run(&mut program("echo one; echo two >&2"), HistoryVerb::Ls, PATIENCE).await;
        assert_eq!(said.expect("said"), "one\n");
        let refused = run(&mut program("echo 'ERROR: no' >&2; exit 1"), HistoryVerb::Logs, PATIENCE).await;
        assert_eq!(refused.expect_err("refused").message, "no");
    }
}
