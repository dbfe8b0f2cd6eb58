//! What a registration must be like: checked when its rows are created.

use super::super::cell::Cell;
use super::super::error::ApiError;
use super::super::schema::Table;
use super::super::transaction::Tx;

/// Refuses a step, an image or an endpoint that can't work.
pub(crate) fn check(tx: &Tx<'_>, table: &Table, set: &[(usize, Cell)]) -> Result<(), ApiError> {
    let cell = |name: &str| {
        let place = table.place(name);
        set.iter()
            .find(|(known, _)| Some(*known) == place)
            .map_or(&Cell::Null, |(_, cell)| cell)
    };
    match table.name.as_str() {
        "sdkmessageprocessingstep" => {
            if *cell("mode") == Cell::Int(1) && *cell("stage") != Cell::Int(40) {
                return Err(ApiError::argument(
                    "An asynchronous step must be registered in the post-operation stage (40).",
                ));
            }
            if cell("eventhandler").is_null() {
                return Err(ApiError::argument(
                    "A step needs an event handler: bind eventhandler_serviceendpoint.",
                ));
            }
            Ok(())
        }
        "serviceendpoint" => match (cell("contract"), cell("url")) {
            (Cell::Int(8), Cell::Text(url))
                if url.starts_with("https://") || url.starts_with("http://") =>
            {
                Ok(())
            }
            (Cell::Int(8), _) => Err(ApiError::argument(
                "A webhook needs an absolute URL of http or https.",
            )),
            _ => Ok(()),
        },
        "sdkmessageprocessingstepimage" => image(
            tx,
            cell("sdkmessageprocessingstepid"),
            cell("imagetype"),
            cell("messagepropertyname"),
        ),
        _ => Ok(()),
    }
}

fn image(tx: &Tx<'_>, step: &Cell, kind: &Cell, property: &Cell) -> Result<(), ApiError> {
    let refused = |problem: &str| Err(ApiError::argument(problem));
    let Some((message, stage)) = message(tx, step) else {
        return refused("An image needs a step.");
    };
    let (before, after) = (*kind != Cell::Int(1), *kind != Cell::Int(0));
    if message == "Create" && before {
        return refused("The message Create has no pre-image.");
    }
    if message == "Delete" && after {
        return refused("The message Delete has no post-image.");
    }
    if after && stage != 40 {
        return refused("Post-images are there in the post-operation stage (40) only.");
    }
    let wanted = if message == "Create" { "Id" } else { "Target" };
    if *property != Cell::text(wanted) {
        return refused(&format!(
            "The messagepropertyname of {message} is {wanted}."
        ));
    }
    Ok(())
}

fn message(tx: &Tx<'_>, step: &Cell) -> Option<(String, i64)> {
    let steps = tx.store.table("sdkmessageprocessingstep")?;
    let row = steps.row(step.id()?)?;
    let stage = match row.cell(steps.table.place("stage")?) {
        Cell::Int(stage) => *stage,
        _ => 40,
    };
    let messages = tx.store.table("sdkmessage")?;
    let message = messages.row(row.cell(steps.table.place("sdkmessageid")?).id()?)?;
    match message.cell(messages.table.place("name")?) {
        Cell::Text(name) => Some((name.to_string(), stage)),
        _ => None,
    }
}
