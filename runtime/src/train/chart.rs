//! Curves of a run as SVG: loss, and accuracy where there is one, over epochs; training and validation.

use std::fmt::Write as _;

use super::EpochRecord;

/// Extents of a panel and the margins around its axes.
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 44.0;

/// Colours that colour-blind readers tell apart.
const TRAIN: &str = "#0072b2";
const VALIDATION: &str = "#d55e00";

/// A line of a panel: name, colour, values.
struct Line {
    name: &'static str,
    colour: &'static str,
    values: Vec<f64>,
}

/// The curves of these epochs.
pub fn curves(history: &[EpochRecord]) -> String {
    let line = |name, colour, value: &dyn Fn(&EpochRecord) -> Option<f64>| {
        let values: Option<Vec<f64>> = history.iter().map(value).collect();
        values.map(|values| Line { name, colour, values })
    };
    let loss = [
        line("training", TRAIN, &|r| Some(r.train_loss)),
        line("validation", VALIDATION, &|r| Some(r.validation_loss)),
    ];
    let accuracy =
        [line("training", TRAIN, &|r| r.train_accuracy), line("validation", VALIDATION, &|r| r.validation_accuracy)];
    let panels: Vec<(&str, Vec<Line>)> = [("loss", loss), ("accuracy", accuracy)]
        .into_iter()
        .map(|(title, lines)| (title, lines.into_iter().flatten().collect()))
        .filter(|(_, lines): &(&str, Vec<Line>)| !lines.is_empty())
        .collect();
    let width = WIDTH * panels.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" width=\"{width}\" \
         height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\" role=\"img\">\n\
         <title>loss and accuracy over epochs</title>\n<rect width=\"{width}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    for (index, (title, lines)) in panels.iter().enumerate() {
        panel(&mut svg, WIDTH * index as f64, title, lines, history);
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, x0: f64, title: &str, lines: &[Line], history: &[EpochRecord]) {
    let values = || lines.iter().flat_map(|line| line.values.iter().copied());
    let (low, high) = values().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
    let step = tick_step(high - low, 6.0);
    let (bottom, top) =
        ((low / step).floor() * step, ((high / step).ceil() * step).max((low / step).floor() * step + step));
    let last = history.last().map_or(1, |r| r.epoch).max(2);
    let right = WIDTH - RIGHT;
    let x = |epoch: f64| x0 + LEFT + (epoch - 1.0) / f64::from(last - 1) * (right - LEFT);
    let y = |value: f64| TOP + (top - value) / (top - bottom) * (HEIGHT - BOTTOM - TOP);
    // Writing to a String can't fail.
    let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"20\" font-weight=\"bold\">{title}</text>", x0 + LEFT);
    let ticks = ((top - bottom) / step).round() as usize;
    for i in 0..=ticks {
        let value = bottom + step * i as f64;
        let _ = writeln!(
            svg,
            "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            x0 + LEFT,
            x0 + right,
            y(value),
            y(value),
            x0 + LEFT - 6.0,
            y(value) + 4.0,
            shown(value, step)
        );
    }
    let every = tick_step(f64::from(last - 1), 8.0).max(1.0).ceil() as u32;
    for epoch in (1..=last).filter(|epoch| *epoch == 1 || epoch.is_multiple_of(every)) {
        let at = x(f64::from(epoch));
        let _ = writeln!(
            svg,
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{epoch}</text>",
            HEIGHT - BOTTOM + 18.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">epoch</text>",
        x0 + (LEFT + right) / 2.0,
        HEIGHT - 8.0
    );
    for (index, line) in lines.iter().enumerate() {
        let at = |(record, value): (&EpochRecord, &f64)| (x(f64::from(record.epoch)), y(*value));
        let points: Vec<(f64, f64)> = history.iter().zip(&line.values).map(at).collect();
        if let [(px, py)] = points[..] {
            let _ = writeln!(svg, "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3\" fill=\"{}\"/>", line.colour);
        } else {
            let path: Vec<String> = points.iter().map(|(px, py)| format!("{px:.1},{py:.1}")).collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\"/>",
                path.join(" "),
                line.colour
            );
        }
        let name_x = x0 + right - 180.0 + 90.0 * index as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{name_x:.1}\" y=\"12\" width=\"14\" height=\"4\" fill=\"{}\"/>\
             <text x=\"{:.1}\" y=\"18\">{}</text>",
            line.colour,
            name_x + 19.0,
            line.name
        );
    }
}

/// A step of 1, 2 or 5 times a power of ten that cuts a range into at most so many parts.
fn tick_step(range: f64, parts: f64) -> f64 {
    let raw = if range.is_finite() && range > 0.0 { range / parts } else { 0.1 };
    let unit = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|m| m * unit >= raw * (1.0 - 1e-9)).unwrap_or(10.0);
    step * unit
}

/// A tick's number with the digits that its step needs.
fn shown(value: f64, step: f64) -> String {
    let digits = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
    // A zero that came from a sum has no sign.
    let value = if value.abs() < step * 1e-6 { 0.0 } else { value };
    if value.abs() >= 1e6 { format!("{value:.1e}") } else { format!("{value:.digits$}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_cut_a_range_into_few_parts() {
        for range in [1e-7, 0.03, 0.7, 1.0, 6.0, 35.0, 12_345.0] {
            let step = tick_step(range, 6.0);
            assert!(range / step <= 6.000_001 && range / step > 2.0, "{range}: {step}");
        }
        assert_eq!((shown(0.30000000000000004, 0.1), shown(-1e-17, 0.05)), ("0.3".to_owned(), "0.00".to_owned()));
    }
}
