//! Draws a scene: for each of four metrics, one bar for each setup, with quartiles.

use std::error::Error;
use std::path::Path;

use e2e::chart::{BLUE, GREY, SKY};
use e2e::document::digits;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::measure::{CONNECTIONS, LATENCY, METRICS, STREAM, STREAM_CPU};
use crate::report;
use crate::scene::Scene;
use crate::way::Way;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const SHOWN: [usize; 4] = [STREAM, STREAM_CPU, LATENCY, CONNECTIONS];
const WIDTH: i32 = 1000;
const HEADER: i32 = 40;
const ROW: i32 = 24;
const CAPTION: i32 = 34;
const RIM: i32 = 16;
/// The space for the name to the left of a bar, and for the value to the right.
const NAMES: i32 = 110;
const NUMBERS: i32 = 70;
const SPREAD: RGBColor = RGBColor(40, 40, 40);

pub(crate) fn draw(path: &Path, scene: &Scene) -> Result<()> {
    let rows = i32::try_from(scene.ways.len())?;
    let height = CAPTION + rows * ROW + RIM;
    let size = (WIDTH.cast_unsigned(), (HEADER + 2 * height).cast_unsigned());
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;
    let write = |text: &str, at: (i32, i32), size: i32, anchor: HPos| {
        let style = ("sans-serif", size).into_font().color(&BLACK).pos(Pos::new(anchor, VPos::Center));
        root.draw(&Text::new(text.to_owned(), at, style))
    };
    write(&report::title(scene), (WIDTH / 2, HEADER / 2), 20, HPos::Center)?;
    for (place, which) in SHOWN.into_iter().enumerate() {
        let metric = METRICS[which];
        let (column, row) = (i32::try_from(place % 2)?, i32::try_from(place / 2)?);
        let (left, top) = (column * WIDTH / 2 + RIM, HEADER + row * height);
        let better = if metric.more_is_better { "more is better" } else { "less is better" };
        write(&format!("{} ({better})", metric.title), (left + NAMES, top + CAPTION / 2), 15, HPos::Left)?;

        let most = scene.ways.iter().map(|way| way.values(which).quantile(0.75)).fold(0.0, f64::max);
        let room = f64::from(WIDTH / 2 - 2 * RIM - NAMES - NUMBERS);
        let begin = left + NAMES;
        let end = |value: f64| begin + (value / most * room).round() as i32;
        for (at, measured) in scene.ways.iter().enumerate() {
            let middle = top + CAPTION + i32::try_from(at)? * ROW + ROW / 2;
            let values = measured.values(which);
            let [lower, median, upper] = [0.25, 0.5, 0.75].map(|share| values.quantile(share));
            let colour = match measured.way {
                way if way.is_ours() => BLUE,
                Way::Host => GREY,
                _ => SKY,
            };
            write(measured.way.name(), (begin - 8, middle), 14, HPos::Right)?;
            root.draw(&Rectangle::new([(begin, middle - 8), (end(median), middle + 8)], colour.filled()))?;
            for line in [
                [(end(lower), middle), (end(upper), middle)],
                [(end(lower), middle - 4), (end(lower), middle + 4)],
                [(end(upper), middle - 4), (end(upper), middle + 4)],
            ] {
                root.draw(&PathElement::new(line, SPREAD))?;
            }
            write(&digits(median), (end(upper) + 8, middle), 13, HPos::Left)?;
        }
    }
    Ok(root.present()?)
}
