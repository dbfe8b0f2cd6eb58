//! Infers a column's type from its values.

use std::collections::BTreeSet;

use chrono::NaiveDate;

use super::super::ids;
use super::super::schema::FieldType;
use super::super::value::parse_datetime;

/// What the values of a column could be.
pub(super) struct Column {
    pub name: String,
    /// The key prefixes of its values, while all of them are ids.
    pub prefixes: BTreeSet<String>,
    pub longest: usize,
    /// Whether any row leaves it empty.
    pub gaps: bool,
    filled: bool,
    boolean: bool,
    int: bool,
    double: bool,
    date: bool,
    datetime: bool,
    id: bool,
    long_id: bool,
    lines: bool,
}

impl Column {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            prefixes: BTreeSet::new(),
            longest: 0,
            gaps: false,
            filled: false,
            boolean: true,
            int: true,
            double: true,
            date: true,
            datetime: true,
            id: true,
            long_id: true,
            lines: false,
        }
    }

    /// Takes one cell into account.
    pub fn see(&mut self, cell: &str) {
        if cell.is_empty() {
            self.gaps = true;
            return;
        }
        self.filled = true;
        self.boolean &= cell.eq_ignore_ascii_case("true") || cell.eq_ignore_ascii_case("false");
        self.int &= is_number(cell) && cell.parse::<i32>().is_ok();
        self.double &= is_number(cell);
        self.date &= cell.len() == 10 && cell.parse::<NaiveDate>().is_ok();
        self.datetime &= parse_datetime(cell).is_some();
        self.id &= ids::is_id(cell);
        self.long_id &= self.id && cell.len() == 18;
        if self.id {
            self.prefixes.insert(cell.chars().take(3).collect());
        } else {
            self.prefixes.clear();
        }
        self.longest = self.longest.max(cell.chars().count());
        self.lines |= cell.contains('\n');
    }

    /// The type. A number of a custom field is a double whatever its values, as in a real org.
    pub fn kind(&self) -> FieldType {
        let name = self.name.as_str();
        let custom = name.ends_with("__c") || name.ends_with("__s");
        if name == "Id" {
            return FieldType::Id;
        }
        if let Some(kind) = well_known(name) {
            return kind;
        }
        if !self.filled {
            return empty(name);
        }
        // A text of 15 letters is an id too: the name must say so, or the checksum of 18.
        if self.id && (name.ends_with("Id") || custom && self.long_id) {
            return FieldType::Reference;
        }
        match () {
            () if self.boolean => FieldType::Boolean,
            () if self.int && !custom => FieldType::Int,
            () if self.double => FieldType::Double,
            () if self.date => FieldType::Date,
            () if self.datetime => FieldType::DateTime,
            () if self.lines || self.longest > 255 => FieldType::Textarea,
            () => text(name),
        }
    }

    /// A text's length: the next usual one.
    pub fn length(&self) -> u32 {
        [255_u32, 1000, 4000, 32_000, 131_072]
            .into_iter()
            .find(|length| self.longest <= *length as usize)
            .unwrap_or(131_072)
    }
}

/// Digits with a sign, a point, an exponent; no leading zero, which only a text has (`01234`).
fn is_number(cell: &str) -> bool {
    let digits = cell.strip_prefix('-').unwrap_or(cell);
    let starts_well = digits
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_digit());
    let padded = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    starts_well && !padded && cell.parse::<f64>().is_ok_and(f64::is_finite)
}

/// Standard fields whose type their values might not tell.
fn well_known(name: &str) -> Option<FieldType> {
    Some(match name {
        "IsDeleted" | "IsActive" | "IsClosed" | "IsWon" => FieldType::Boolean,
        "CreatedDate" | "LastModifiedDate" | "SystemModstamp" | "LastViewedDate"
        | "LastReferencedDate" | "LastLoginDate" => FieldType::DateTime,
        "CreatedById" | "LastModifiedById" | "OwnerId" => FieldType::Reference,
        "AnnualRevenue" | "Amount" | "ExpectedRevenue" => FieldType::Currency,
        "Probability" => FieldType::Percent,
        "CloseDate" | "LastActivityDate" | "Birthdate" => FieldType::Date,
        "Description" => FieldType::Textarea,
        "Phone" | "Fax" | "MobilePhone" | "HomePhone" | "OtherPhone" | "AssistantPhone"
        | "PersonMobilePhone" => FieldType::Phone,
        "Name" | "FirstName" | "LastName" | "AccountNumber" | "Sic" => FieldType::String,
        _ if name.ends_with("PostalCode") => FieldType::String,
        _ if name.ends_with("Latitude") || name.ends_with("Longitude") => FieldType::Double,
        _ if name.ends_with("__Latitude__s") || name.ends_with("__Longitude__s") => {
            FieldType::Double
        }
        _ => return None,
    })
}

/// The type of a column without a value.
fn empty(name: &str) -> FieldType {
    match name {
        "ParentId" | "AccountId" | "ContactId" | "ManagerId" | "ReportsToId" | "MasterRecordId"
        | "RecordTypeId" | "CampaignId" | "OpportunityId" => FieldType::Reference,
        _ if name.starts_with("Is") => FieldType::Boolean,
        _ => text(name),
    }
}

fn text(name: &str) -> FieldType {
    match name {
        _ if name.ends_with("Email") => FieldType::Email,
        "Website" | "PhotoUrl" => FieldType::Url,
        "Industry"
        | "Type"
        | "Rating"
        | "Ownership"
        | "AccountSource"
        | "LeadSource"
        | "StageName"
        | "ForecastCategoryName"
        | "Status"
        | "Priority"
        | "Origin"
        | "Salutation" => FieldType::Picklist,
        _ if name.ends_with("Street") => FieldType::Textarea,
        _ => FieldType::String,
    }
}
