//! A page about a run: result, curves, epochs, settings. One HTML file that needs no network.

use std::fmt::Write as _;
use std::path::Path;

use super::{Config, ConfigError, Position};

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}svg{max-width:100%;height:auto}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{padding:.15rem .7rem;text-align:right;\
border-bottom:1px solid #ddd}tr.best td{font-weight:bold;background:#f1f6fb}\
pre{background:#f6f6f6;padding:1rem;overflow-x:auto}";

/// The page; `sizes` says how much data there is, `curves` is an SVG picture.
///
/// # Errors
/// None but internal ones.
pub fn page(config: &Config, position: &Position, sizes: &str, curves: &str) -> Result<String, ConfigError> {
    let title = escaped(&format!("{} on {}", short(&config.model), short(&config.data.source)));
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n<h1>{title}</h1>\n<p>{}</p>\n",
        escaped(&summary(config, position, sizes))
    );
    html.push_str(curves);
    html.push_str("<h2>Epochs</h2>\n<table>\n<tr><th>epoch<th>learning rate<th>loss<th>validation loss");
    let classes = position.history.iter().any(|record| record.validation_accuracy.is_some());
    if classes {
        html.push_str("<th>accuracy<th>validation accuracy");
    }
    html.push_str("<th>gradient norm<th>samples/s<th>seconds</tr>\n");
    for record in &position.history {
        let mark = if position.best.is_some_and(|best| best.epoch == record.epoch) { " class=\"best\"" } else { "" };
        // Writing to a String can't fail.
        let _ = write!(
            html,
            "<tr{mark}><td>{}<td>{:.3e}<td>{:.4}<td>{:.4}",
            record.epoch, record.learning_rate, record.train_loss, record.validation_loss
        );
        if classes {
            let accuracy = |a: Option<f64>| a.map(|a| format!("{:.2} %", a * 100.0)).unwrap_or_default();
            let (train, validation) = (accuracy(record.train_accuracy), accuracy(record.validation_accuracy));
            let _ = write!(html, "<td>{train}<td>{validation}");
        }
        let _ = writeln!(
            html,
            "<td>{:.3}<td>{:.0}<td>{:.2}</tr>",
            record.grad_norm, record.samples_per_second, record.seconds
        );
    }
    let _ = writeln!(html, "</table>\n<h2>Settings</h2>\n<pre>{}</pre>\n</html>", escaped(&config.to_toml()?));
    Ok(html)
}

/// The result in a sentence.
fn summary(config: &Config, position: &Position, sizes: &str) -> String {
    let result = match position.best {
        None => "No epoch is done.".to_owned(),
        Some(best) => {
            let classes = position.history.iter().any(|record| record.validation_accuracy.is_some());
            let metric = if classes {
                format!("validation accuracy {:.2} %", best.metric * 100.0)
            } else {
                format!("validation loss {:.6}", best.metric)
            };
            format!("Best {metric} at epoch {}.", best.epoch)
        }
    };
    format!("{result} {} of {} epochs in {:.1} s; {sizes}.", position.epoch, config.epochs(), position.seconds)
}

/// A file's name without its folders.
fn short(path: &str) -> &str {
    Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or(path)
}

/// Text as HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
