//! Logging to the standard error: one line per event, whatever texts the event contains.
use crate::config::Log;
use std::borrow::Cow;
use std::io::{self, Write};
use tracing_subscriber::EnvFilter;

/// Begins to log in this format.
pub(crate) fn begin(format: Log) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,openraft=error"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(is_terminal());
    match format {
        Log::Text => {
            lines.with_target(false).with_writer(|| Lines { out: io::stderr(), has_colours: is_terminal() }).init()
        }
        Log::Json => lines.json().with_writer(io::stderr).init(),
    }
}

/// Returns whether the standard error is a terminal. Only then are colours used: a log that is collected has none.
fn is_terminal() -> bool {
    io::IsTerminal::is_terminal(&io::stderr())
}

/// Writes events as single lines. Many events contain names and texts of clients; none of these may begin a new line or
/// move the cursor of a terminal. Each write is one event.
struct Lines<W> {
    out: W,
    has_colours: bool,
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.out.write_all(one_line(&String::from_utf8_lossy(event), self.has_colours).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Returns the event with its line breaks and other control characters escaped, except for the break at its end and for
/// colours.
fn one_line(event: &str, has_colours: bool) -> Cow<'_, str> {
    let (text, end) = event.strip_suffix('\n').map_or((event, ""), |text| (text, "\n"));
    let is_colour = |at: usize| {
        let code = text[at..].strip_prefix("\x1b[").unwrap_or_default();
        has_colours && code.trim_start_matches(|one: char| one.is_ascii_digit() || one == ';').starts_with('m')
    };
    let is_escaped = |(at, one): (usize, char)| one.is_control() && one != '\t' && !(one == '\x1b' && is_colour(at));
    if !text.char_indices().any(is_escaped) {
        return Cow::Borrowed(event);
    }
    let mut line = String::with_capacity(event.len() + 16);
    for (at, one) in text.char_indices() {
        if is_escaped((at, one)) {
            line.extend(one.escape_default());
        } else {
            line.push(one);
        }
    }
    Cow::Owned(line + end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().map_err(|_| io::ErrorKind::Other)?.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn client_names_never_begin_a_log_line() {
        for ansi in [false, true] {
            let kept = Kept::default();
            let writer = kept.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(ansi)
                .with_writer(move || Lines { out: writer.clone(), has_colours: ansi })
                .finish();
            tracing::subscriber::with_default(subscriber, || {
                let name = "x\r\n2026-01-01 ERROR forged\u{1b}[2J\u{7}";
                tracing::info!(name, shown = %name, "queue '{name}' is gone");
            });
            let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
            assert_eq!(text.lines().count(), 1, "{text:?}");
            assert!(text.ends_with('\n') && !text.contains('\r') && !text.contains('\u{7}'), "{text:?}");
            assert!(!text.contains("\u{1b}[2J") && text.contains('\u{1b}') == ansi, "{text:?}");
        }
    }
}
