//! Which lines at the margin belong to a stack trace.

/// What kind of lines may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trace {
    /// An event of which only the first line is known, or its continuation: `dated` says that the first line bore a
    /// timestamp, so that an exception named right below it is a part of it.
    Event { dated: bool, indented: bool },
    /// After `Traceback (most recent call last):`, until the exception at the margin.
    Python,
    /// After the exception of a Python trace: another one may be chained to it.
    PythonChain,
    /// After `panic:`, `fatal error:` or `goroutine 1 [running]:`, until something else.
    Go,
    /// After the source line and the caret that Node prints before an exception.
    Node,
}

const PYTHON: &[u8] = b"Traceback (most recent call last):";
const PYTHON_CHAINS: [&[u8]; 2] = [
    b"During handling of the above exception, another exception occurred:",
    b"The above exception was the direct cause of the following exception:",
];

impl Trace {
    /// What the first line of an event lets follow; `dated` if it begins with a timestamp or the like.
    pub(super) fn begun_by(line: &[u8], dated: bool) -> Self {
        if line.starts_with(PYTHON) {
            Self::Python
        } else if line.starts_with(b"panic: ") || line.starts_with(b"fatal error: ") || is_goroutine(line) {
            Self::Go
        } else {
            Self::Event { dated, indented: false }
        }
    }

    /// Whether a line that does not begin an event goes on this one; `second` if it is the second line of the event.
    pub(super) fn goes_on(&mut self, line: &[u8], second: bool) -> bool {
        let blank = line.iter().all(u8::is_ascii_whitespace);
        if !blank && matches!(line.first(), Some(b' ' | b'\t')) {
            match self {
                Self::Event { .. } if is_caret(line) => *self = Self::Node,
                Self::Event { indented, .. } => *indented = true,
                Self::PythonChain => *self = Self::Event { dated: false, indented: true },
                _ => {}
            }
            return true;
        }
        match *self {
            Self::Python => {
                // The exception itself; a blank line here is none.
                *self = Self::PythonChain;
                !blank
            }
            Self::PythonChain if blank || PYTHON_CHAINS.iter().any(|chain| line.starts_with(chain)) => true,
            Self::PythonChain if line.starts_with(PYTHON) => {
                *self = Self::Python;
                true
            }
            Self::PythonChain => false,
            Self::Go => blank || is_go(line),
            Self::Node => blank || is_exception(line) || is_closing(line) || line.starts_with(b"Node.js v"),
            Self::Event { .. } if blank => false,
            Self::Event { dated, indented } => {
                if dated && second && line.starts_with(PYTHON) {
                    *self = Self::Python;
                    return true;
                }
                if second && is_goroutine(line) {
                    *self = Self::Go;
                    return true;
                }
                line.starts_with(b"Caused by: ")
                    || line.starts_with(b"Suppressed: ")
                    || line.starts_with(b"--- End of ")
                    || (dated && second && is_exception(line))
                    || (indented && (is_closing(line) || line.starts_with(b"... ")))
            }
        }
    }
}

fn is_goroutine(line: &[u8]) -> bool {
    line.starts_with(b"goroutine ") && line.ends_with(b"]:")
}

fn is_go(line: &[u8]) -> bool {
    let starts: [&[u8]; 6] = [b"goroutine ", b"created by ", b"[signal ", b"exit status ", b"panic: ", b"runtime: "];
    starts.iter().any(|start| line.starts_with(start)) || is_go_frame(line)
}

/// `main.(*Server).run(0xc000010000, {0x1, 0x2})`: a path and a name with a dot and without blanks, then its arguments.
fn is_go_frame(line: &[u8]) -> bool {
    let name = &line[..memchr::memchr(b'(', line).unwrap_or(0)];
    line.ends_with(b")") && name.contains(&b'.') && !name.contains(&b' ')
}

/// `java.io.IOException: gone`, `System.InvalidOperationException`, `TypeError: x is not a function`: a name of letters,
/// digits and dots that ends in one of the words for failures, then a colon or nothing.
fn is_exception(line: &[u8]) -> bool {
    let part = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'$' | b'`');
    let length = line.iter().take_while(|b| part(b)).count();
    let (name, rest) = line.split_at(length);
    let ends: [&[u8]; 4] = [b"Exception", b"Error", b"Throwable", b"Failure"];
    ends.iter().any(|end| name.ends_with(end))
        && (rest.is_empty() || rest.starts_with(b": ") || rest.starts_with(b" ["))
}

/// The mark that Node and others put below the place of a mistake.
fn is_caret(line: &[u8]) -> bool {
    line.contains(&b'^') && line.iter().all(|b| matches!(b, b' ' | b'\t' | b'^' | b'~'))
}

/// Brackets that close what indented lines were inside.
fn is_closing(line: &[u8]) -> bool {
    matches!(line.first(), Some(b'}' | b']' | b')'))
        && line.iter().all(|b| matches!(b, b'}' | b']' | b')' | b',' | b';'))
}
