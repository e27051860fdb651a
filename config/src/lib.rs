//! The YAML of frp-gateway: text in, a valid [`Config`] or every fault of the file out.
//!
//! The whole pipeline is [`load`]: YAML text → tree of nodes with places (`yaml`) → typed model, section by
//! section (`sections`, with the readers of `read`) → diagnostics in file order. No step stops at the first
//! fault. The crate opens no files, reads no environment and no clock: what lies outside the text comes through
//! a [`Resolver`].
//!
//! Reading order: [`model`] (what the gateway gets), `keys` (the one table of keys: it drives unknown-key
//! checks, ranges, defaults, the JSON Schema and the reference page), `sections`, then the rest.

mod diagnostic;
pub mod diff;
mod keys;
pub mod model;
mod read;
mod reference;
mod resolver;
pub mod schema;
pub mod secret;
mod sections;
mod suggest;
pub mod units;
mod yaml;

pub use diagnostic::{Diagnostic, Severity};
pub use diff::{Changes, diff};
pub use model::Config;
pub use reference::reference_markdown;
pub use resolver::{NoResolver, Resolver};

/// What came out of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration; `None` when a diagnostic is an error.
    pub config: Option<Config>,
    /// All errors and warnings, in file order.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads a whole configuration.
///
/// `file` is only the name shown in diagnostics. Linear in the length of `text`, which may have 4 MiB; aliases,
/// depth and the number of diagnostics are bounded. Never panics, whatever the text.
#[must_use]
pub fn load(text: &str, file: &str, resolver: &dyn Resolver) -> Loaded {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut ctx = read::Ctx::new(resolver);
    let (config, source) = match yaml::parse(text) {
        Ok(tree) => {
            let config = sections::document(&mut ctx, &tree);
            (Some(config), diagnostic::Source::new(file, text, yaml::secret_spans(&tree)))
        }
        Err(fault) => {
            ctx.push(*fault);
            (None, diagnostic::Source::unparsed(file, text))
        }
    };
    let diagnostics = source.explain(ctx.into_faults());
    let failed = diagnostics.iter().any(|d| d.severity == Severity::Error);
    Loaded { config: config.filter(|_| !failed), diagnostics }
}
