//! `frit help [COMMAND | ops | passes]` and shell completions: what the program knows of itself, from its own tables.

use clap::CommandFactory;
use frit_ir::op::{BinaryOp, Op, OpClass, UnaryOp};
use frit_passes::manager::{Level, PASSES};

use crate::args::Cli;
use crate::console::Console;
use crate::error::{CliError, Done};
use crate::table::{Align, table};

/// Prints a help page.
pub(crate) fn run(topic: Option<&str>, console: &Console) -> Done {
    let mut command = Cli::command();
    command.build();
    let text = match topic {
        None => command.render_long_help().to_string(),
        Some("ops") => ops(),
        Some("passes") => passes(),
        Some(name) => match command.find_subcommand_mut(name) {
            Some(found) => found.render_long_help().to_string(),
            None => {
                let message = format!("there is no help on `{name}`");
                return Err(CliError::usage(message, "`frit help` lists the commands; topics are `ops` and `passes`"));
            }
        },
    };
    console.text(&text)
}

/// Prints a shell's completion script.
pub(crate) fn completions(shell: clap_complete::Shell, console: &Console) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "frit", &mut script);
    console.text(&String::from_utf8_lossy(&script))
}

/// The core op set, by class, from the table that defines it.
fn ops() -> String {
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut all: Vec<(OpClass, String, String)> = Vec::new();
    for (name, about) in UnaryOp::DOCS.iter().chain(BinaryOp::DOCS) {
        all.push((OpClass::Elementwise, (*name).to_owned(), one_line(about)));
    }
    for (name, class, about) in Op::DOCS {
        all.push((*class, (*name).to_owned(), one_line(about)));
    }
    let mut text =
        String::from("The core ops: every model becomes these, and every pass and back end knows only these.\n");
    let classes = [
        OpClass::Source,
        OpClass::Elementwise,
        OpClass::Movement,
        OpClass::Reduction,
        OpClass::Contraction,
        OpClass::Control,
        OpClass::Host,
        OpClass::Foreign,
    ];
    for class in classes {
        text.push_str(&format!("\n{class:?}\n"));
        for (_, name, about) in all.iter().filter(|(c, ..)| *c == class) {
            text.push_str(&format!("  {name:<20} {about}\n"));
        }
    }
    text
}

/// Passes with their options, and the pipelines of the levels.
fn passes() -> String {
    let mut rows = Vec::new();
    for pass in PASSES {
        rows.push(vec![pass.name.to_owned(), pass.about.to_owned()]);
        for option in pass.options {
            rows.push(vec![format!("  {}=N", option.name), option.about.to_owned()]);
        }
    }
    let mut text = String::from("Passes, for --passes and in the order that levels run them:\n\n");
    for line in table(&[("pass", Align::Left), ("what it does", Align::Left)], &rows) {
        text.push_str(&format!("{line}\n"));
    }
    text.push_str("\nLevels:\n\n");
    for (digit, level) in [Level::O0, Level::O1, Level::O2, Level::O3].into_iter().enumerate() {
        text.push_str(&format!("  -O{digit}  {}\n", level.pipeline_text()));
    }
    text.push_str(
        "\nExample: frit compile model.onnx --passes \"legalize,shape,simplify,fuse(max-ops=40)\" --emit frit\n",
    );
    text
}
