//! What a configuration may ask of the world outside its text.

/// Answers `${VAR}` and `file:` references. The gateway gives the real thing; tests give a table.
pub trait Resolver {
    /// Value of an environment variable; `None` when it is not set.
    fn env(&self, name: &str) -> Option<String>;

    /// Content of a file.
    ///
    /// # Errors
    /// The reason, in words for the user, why the file can't be read. It is shown, so it must not quote content.
    fn file(&self, path: &str) -> Result<String, String>;
}

/// Knows no variable and no file.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoResolver;

impl Resolver for NoResolver {
    fn env(&self, _name: &str) -> Option<String> {
        None
    }

    fn file(&self, _path: &str) -> Result<String, String> {
        Err("no files here".to_owned())
    }
}
