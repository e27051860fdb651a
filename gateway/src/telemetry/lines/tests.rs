use std::{fs, sync::mpsc::channel};

use super::*;

fn line(text: &str) -> Vec<u8> {
    format!("{text}\n").into_bytes()
}

/// A log to a file that was flushed.
fn flushed(lines: &Lines, path: &Path) -> String {
    lines.flush();
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.log");
    let lines = Lines::off("test log");
    let nowhere = AccessLog::File("/nonexistent/folder/x.log".into());
    assert!(lines.switch(&nowhere).is_err());
    assert!(!lines.is_on());
    lines.switch(&AccessLog::File(path.clone())).unwrap();
    assert!(lines.switch(&nowhere).is_err());
    assert!(lines.is_on());
    lines.line(line("still here"));
    assert_eq!(flushed(&lines, &path), "still here\n");
}

#[test]
fn a_flush_ends_when_everything_so_far_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.log");
    let lines = Lines::off("test log");
    lines.switch(&AccessLog::File(path.clone())).unwrap();
    for number in 0..5000 {
        lines.line(line(&number.to_string()));
    }
    assert_eq!(flushed(&lines, &path).lines().count(), 5000);
    assert_eq!(lines.dropped(), 0);
}

#[test]
fn everything_is_in_the_file_once_the_last_handle_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.log");
    let lines = Lines::off("test log");
    lines.switch(&AccessLog::File(path.clone())).unwrap();
    let other = lines.clone();
    drop(lines);
    for number in 0..5000 {
        other.line(line(&number.to_string()));
    }
    drop(other);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 5000);
}

#[test]
fn lines_of_before_a_switch_go_to_the_old_file_and_those_after_it_to_the_new() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old.log"), folder.path().join("new.log"));
    let lines = Lines::off("test log");
    lines.switch(&AccessLog::File(old.clone())).unwrap();
    lines.line(line("1"));
    lines.switch(&AccessLog::File(new.clone())).unwrap();
    lines.line(line("2"));
    assert_eq!((flushed(&lines, &new), fs::read_to_string(old).unwrap()), ("2\n".into(), "1\n".into()));
}

#[test]
fn a_rotated_file_is_opened_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (path, rotated) = (folder.path().join("x.log"), folder.path().join("x.log.1"));
    let lines = Lines::off("test log");
    lines.switch(&AccessLog::File(path.clone())).unwrap();
    lines.line(line("1"));
    lines.flush();
    fs::rename(&path, &rotated).unwrap();
    lines.reopen();
    lines.line(line("2"));
    assert_eq!((flushed(&lines, &path), fs::read_to_string(rotated).unwrap()), ("2\n".into(), "1\n".into()));
}

/// A destination that takes nothing: a pipe that nobody reads.
fn stuck(folder: &Path) -> (PathBuf, File) {
    let path = folder.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success(), "{made}");
    // Open for both, so that opening it for writing doesn't wait for a reader.
    let held = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    (path, held)
}

#[test]
fn a_stuck_destination_delays_neither_lines_nor_switches_and_what_is_lost_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (pipe, mut held) = stuck(folder.path());
    let path = folder.path().join("x.log");
    let lines = Lines::off("test log");
    lines.switch(&AccessLog::File(pipe)).unwrap();
    let (done, wait) = channel();
    let (writer, target) = (lines.clone(), AccessLog::File(path.clone()));
    thread::spawn(move || {
        let long = "x".repeat(1000);
        for _ in 0..2 * QUEUE {
            writer.line(line(&long));
        }
        for _ in 0..3 {
            writer.switch(&AccessLog::Off).unwrap();
            writer.switch(&target).unwrap();
        }
        done.send(()).unwrap();
    });
    wait.recv_timeout(Duration::from_secs(20)).expect("neither lines nor switches wait for the pipe");
    assert!(lines.dropped() >= QUEUE as u64 / 2, "{} were lost", lines.dropped());
    // It goes on: the latest switch is the one that counts.
    thread::spawn(move || io::copy(&mut held, &mut io::sink()));
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        lines.line(line("after"));
        if flushed(&lines, &path).ends_with("after\n") {
            break;
        }
        assert!(Instant::now() < deadline, "the switch was lost");
    }
}

#[test]
fn lines_that_keep_coming_are_written_in_time_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.log");
    let lines = Lines::off("test log");
    lines.switch(&AccessLog::File(path.clone())).unwrap();
    let begun = Instant::now();
    // One every 20 ms: never silent for long, and never enough to fill the buffer.
    while fs::read_to_string(&path).unwrap().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(5), "nothing in the file");
        lines.line(line("x"));
        thread::sleep(Duration::from_millis(20));
    }
}
