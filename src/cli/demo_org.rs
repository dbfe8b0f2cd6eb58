//! The demo's org: generated users, accounts and opportunities as CSV files, the same for the same seed.

use std::path::Path;

use crate::fault::{Fault, FaultKind};
use crate::model::record_id::RecordId;

const USERS: usize = 12;
const OPPORTUNITIES_EACH: usize = 3;
const STAMP: &str = "2026-01-01T00:00:00.000+0000";

const FIRST: [&str; 12] = [
    "Ada", "Bruno", "Chidi", "Dana", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kaya",
    "Lena",
];
const LAST: [&str; 8] = [
    "Abel", "Brandt", "Costa", "Duarte", "Egger", "Fischer", "Gomez", "Hansen",
];
const HEAD: [&str; 10] = [
    "Amber", "Birch", "Copper", "Delta", "Ember", "Flint", "Granite", "Harbor", "Indigo", "Juniper",
];
const TAIL: [&str; 8] = [
    "Logistics",
    "Foods",
    "Robotics",
    "Energy",
    "Textiles",
    "Optics",
    "Media",
    "Tools",
];
const INDUSTRY: [&str; 6] = [
    "Energy",
    "Retail",
    "Software",
    "Transport",
    "Finance",
    "Health",
];
const COUNTRY: [&str; 5] = ["Germany", "France", "Poland", "Spain", "Norway"];
const STAGE: [&str; 4] = ["Prospecting", "Engaging", "Closed Won", "Closed Lost"];

/// Writes the files that are not there yet.
///
/// # Errors
/// `Storage` if they can't be written.
pub(super) fn write(dir: &Path, accounts: usize) -> Result<(), Fault> {
    if dir.join("Account.csv").exists() {
        return Ok(());
    }
    std::fs::create_dir_all(dir).map_err(|error| unwritable(dir, error))?;
    let files = [
        ("User.csv", users()),
        ("Opportunity.csv", opportunities(accounts)),
        // Last: its presence says that the others are whole.
        ("Account.csv", account_rows(accounts)),
    ];
    for (name, text) in files {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|error| unwritable(&path, error))?;
    }
    Ok(())
}

fn unwritable(path: &Path, error: std::io::Error) -> Fault {
    Fault::new(
        FaultKind::Storage,
        format!("writing the demo's org `{}`", path.display()),
    )
    .source(error)
    .remedy("choose another `--dir`")
}

/// The id of the `number`th record of a key prefix.
pub(super) fn id(prefix: &str, number: usize) -> String {
    let short = format!("{prefix}{number:012}");
    RecordId::salesforce(&short).map_or(short, |id| id.to_string())
}

fn users() -> String {
    let mut rows = String::from(
        "Id,FirstName,LastName,Email,Username,Title,Division,ManagerId,UserType,IsActive,CreatedDate,LastModifiedDate,SystemModstamp\n",
    );
    for number in 0..USERS {
        let (first, last) = (FIRST[number % FIRST.len()], LAST[number % LAST.len()]);
        let address = format!(
            "{}.{}@demo.example",
            first.to_lowercase(),
            last.to_lowercase()
        );
        let manager = if number == 0 {
            String::new()
        } else {
            id("005", number / 4)
        };
        let title = if number < 3 {
            "Sales Manager"
        } else {
            "Account Executive"
        };
        rows += &format!(
            "{},{first},{last},{address},{address},{title},EMEA,{manager},Standard,true,{STAMP},{STAMP},{STAMP}\n",
            id("005", number)
        );
    }
    rows
}

fn account_rows(accounts: usize) -> String {
    let mut rows = String::from(
        "Id,Name,Industry,NumberOfEmployees,AnnualRevenue,BillingCountry,ParentId,OwnerId,CreatedDate,LastModifiedDate,SystemModstamp,IsDeleted\n",
    );
    for number in 0..accounts {
        let name = format!(
            "{} {} {}",
            HEAD[number % HEAD.len()],
            TAIL[(number / HEAD.len()) % TAIL.len()],
            number + 1
        );
        let parent = if number % 7 == 3 {
            id("001", number / 7)
        } else {
            String::new()
        };
        rows += &format!(
            "{},{name},{},{},{},{},{parent},{},{STAMP},{STAMP},{STAMP},false\n",
            id("001", number),
            INDUSTRY[number % INDUSTRY.len()],
            20 + number * 37 % 5000,
            100_000 + number * 91_357 % 90_000_000,
            COUNTRY[number % COUNTRY.len()],
            id("005", number % USERS),
        );
    }
    rows
}

fn opportunities(accounts: usize) -> String {
    let mut rows = String::from(
        "Id,Name,StageName,Amount,CloseDate,AccountId,OwnerId,Type,CreatedDate,LastModifiedDate,SystemModstamp,IsDeleted\n",
    );
    for number in 0..accounts * OPPORTUNITIES_EACH {
        let account = number / OPPORTUNITIES_EACH;
        rows += &format!(
            "{},Deal {},{},{}.50,2026-{:02}-{:02},{},{},New Business,{STAMP},{STAMP},{STAMP},false\n",
            id("006", number),
            number + 1,
            STAGE[number % STAGE.len()],
            500 + number * 613 % 250_000,
            1 + number % 12,
            1 + number % 28,
            id("001", account),
            id("005", number % USERS),
        );
    }
    rows
}
