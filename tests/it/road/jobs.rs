//! The jobs of the world, and which column each field goes to unchanged.

/// CRM's field, store's column.
pub const USER_COLUMNS: &[(&str, &str)] = &[
    ("Username", "username"),
    ("Email", "email"),
    ("FirstName", "first_name"),
    ("LastName", "last_name"),
    ("Title", "user_title"),
    ("TimeZoneSidKey", "time_zone"),
    ("LocaleSidKey", "locale"),
    ("Division", "division"),
    ("UserType", "user_type"),
    ("IsActive", "is_active"),
];
pub const COMPANY_COLUMNS: &[(&str, &str)] = &[
    ("Name", "name"),
    ("Industry", "industry"),
    ("NumberOfEmployees", "employees"),
    ("AnnualRevenue", "annual_revenue"),
    ("YearStarted", "year_started"),
    ("BillingCountry", "billing_country"),
];
pub const OPPORTUNITY_COLUMNS: &[(&str, &str)] = &[
    ("Name", "name"),
    ("StageName", "stage"),
    ("Amount", "amount"),
    ("CloseDate", "close_date"),
    ("Type", "type"),
];

pub const EXTRA: &str = "[fields.year_started]\ntype = \"number\"\nlabel = \"Year Started\"\n";

pub const USER_JOB: &str = r#"
source = "User"
on_delete = "delete"
[to.User]
identifiers = ["username"]
[to.User.map]
salesforce_user_id = "Id"
username = "Username"
email = "Email"
first_name = "FirstName"
last_name = "LastName"
user_title = "Title"
time_zone = "TimeZoneSidKey"
locale = "LocaleSidKey"
division = "Division"
user_type = "UserType"
is_active = "IsActive"
[to.User.derive]
manager = { from = "User", match = { "@id" = "ManagerId" }, on_multiple = "any", on_none = "null" }
"#;

pub const COMPANY_JOB: &str = r#"
source = "Account"
on_delete = "delete"
[to.Company]
identifiers = ["salesforce_account_id"]
[to.Company.map]
salesforce_account_id = "Id"
name = "Name"
industry = "Industry"
employees = "NumberOfEmployees"
annual_revenue = "AnnualRevenue"
year_started = "YearStarted"
billing_country = "BillingCountry"
[to.Company.derive]
parent_company = { from = "Company", match = { "@id" = "ParentId" }, on_none = "null" }
"#;

pub const OPPORTUNITY_JOB: &str = r#"
source = "Opportunity"
on_delete = "delete"
[to.Opportunity]
identifiers = ["external_id"]
[to.Opportunity.map]
external_id = "Id"
name = "Name"
stage = "StageName"
amount = "Amount"
close_date = "CloseDate"
type = "Type"
[to.Opportunity.derive]
company_id = { from = "Company", match = { "@id" = "AccountId" }, on_none = "null" }
owner_id = { from = "User", match = { "@id" = "OwnerId" }, on_none = "null" }
"#;
