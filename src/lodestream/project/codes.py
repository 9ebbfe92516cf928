"""Every code of a mistake, with what it means and one sentence on what to do."""

from __future__ import annotations

from dataclasses import dataclass

from lodestream.expressions.errors import CODES as EXPRESSION_CODES


@dataclass(frozen=True, slots=True)
class Code:
    """What a code means (`title`) and what its reader should do (`remedy`)."""

    title: str
    remedy: str


CODES: dict[str, Code] = {
    # the file
    "D101": Code(
        "not valid YAML", "correct the YAML; put a value that holds ': ' or ' #', or begins with a quote, into quotes"
    ),
    "D102": Code("key appears twice", "keep one of them"),
    "D103": Code("unknown key", "use a key of this block, or remove it"),
    "D104": Code("wrong kind of value", "write the kind of value that the message asks for"),
    "D105": Code("missing key", "add the key"),
    "D106": Code("value not allowed", "use one of the allowed values"),
    "D107": Code("not a duration", "write a number and a unit, such as 30 seconds, 500 ms, 1 minute or 90 days"),
    "D108": Code("not a type", "use a Spark SQL type, such as string, bigint, decimal(12,2) or timestamp"),
    "D109": Code("comma ends the value", "inside { } put an expression that holds a comma into quotes"),
    "D110": Code("not a name", "use lower-case letters, digits and _, beginning with a letter"),
    "D111": Code("reserved name", "choose another name: a leading _, window_start and window_end are ours"),
    "D112": Code("file in the wrong place", "put one table into tables/<bronze|silver|gold>/<name>.yaml"),
    "D113": Code("name appears twice", "give each its own name; names that differ only in case are the same"),
    "D114": Code("not a schedule", "write @hourly, @daily, 'every 5 minutes' or five cron fields"),
    "D115": Code("no project here", "run in a folder with a lodestream.yaml, or make one with `lodestream init`"),
    "D116": Code("no such environment", "use a name under environments:, or add it there"),
    "D117": Code("deleted files are kept too short", "keep them for at least 3 hours"),
    # the parts
    "D201": Code("no such table", "name a declared table as layer.name, or add its file"),
    "D202": Code("no such component", "use the name of an installed component"),
    "D203": Code("wrong component setting", "correct the setting; `lodestream schema` lists what each component takes"),
    "D204": Code("component needs a package", "install the package that the message names"),
    "D205": Code("table without an input", "give it one of source:, from: or sql:"),
    "D206": Code("table with two inputs", "keep one of source:, from: and sql:"),
    "D207": Code("key has no meaning here", "remove it, or move it to a table of the right kind"),
    "D208": Code(
        "reads from a higher layer", "read a table of the same layer or below: data flows bronze, silver, gold"
    ),
    "D209": Code("cycle", "remove one of the edges; a table cannot be computed from itself"),
    "D210": Code(
        "not a stream", "read it with sql:, or stream from the table that feeds it; windows of windows need emit: final"
    ),
    "D211": Code("not a function name", "write python: module:function"),
    "D212": Code("sink without a key", "name the columns that tell the table's rows apart under key:"),
    "D213": Code("secret written out", "write a reference, such as ${env:NAME} or ${file:/run/secrets/name}"),
    "D214": Code("enrichers that do not go together", "ask in a table of its own, and read that as a stream"),
    "D215": Code("lookup and history do not fit", "give as_of: for a table with changes: type: 2, and for no other"),
    # the columns
    "D301": Code("event time is not a timestamp", "name a timestamp column, or derive one with cast(x as timestamp)"),
    "D302": Code(
        "cannot partition by this",
        "use a column, date(x), month(x) or year(x) of a date or timestamp, or hour(x) of a timestamp",
    ),
    "D303": Code("lookup key types differ", "derive a column of the other side's type and use that"),
    "D304": Code("columns not known", "declare columns:, or plan where the source has data to sample"),
    "D305": Code("rule is not a condition", "write an expression that is true or false"),
    "D306": Code("cannot compare values of this type", "use a column of a simple type, not an array, map or struct"),
    "D307": Code("column appears twice", "name the column differently, such as {there: another_name}"),
    "D308": Code("enricher cannot read this type", "derive a column of a type that it reads"),
    "D311": Code("changes cannot be ordered or matched by this type", "use a whole number, a decimal, text or a time"),
    "D310": Code("select leaves out a column that changes need", "add the keys and sequence_by of changes to select"),
    "D309": Code("not an expression", "write a Spark SQL expression"),
    "D312": Code("cannot be Z-ordered by this", "name columns of simple types that the table is not partitioned by"),
    # policies
    "D401": Code("not an object of the catalog", "write a table as layer.name, a layer, or '*' in quotes"),
    "D402": Code(
        "policy on a quarantine", "name the table: its filters and masks close its quarantine to whom they bind"
    ),
    "D403": Code("two masks on one column", "keep one of them"),
    "D404": Code("not a column", "write layer.table.column"),
    # deployment
    "D501": Code(
        "not a Quartz schedule",
        "write second minute hour day month weekday [year], with ? for the day or the weekday: 0 30 2 * * ?",
    ),
    "D502": Code("fewer workers at most than at least", "make the greatest number of workers at least the smallest"),
    "D503": Code("not the address of a workspace", "write https://…, or leave it out: the CLI takes DATABRICKS_HOST"),
    "D504": Code("no auto-stop on job clusters", "remove it: a job cluster ends with its run"),
    "D505": Code("schedule that Quartz cannot say", "restrict the day of the month or the weekday, or write `every …`"),
    "D506": Code("table that Spark cannot run", "change it as the message says, or keep this project on one machine"),
    "D507": Code("nothing of this name in the bundle", "declare it, or correct the name"),
    # lakes: what doctor finds
    "L101": Code("little space on the disk", "free space: a full disk stops every table, and loses nothing"),
    "L102": Code("lake cannot be written", "make the folder writable, on a file system with hard links"),
    "L201": Code("last commit is empty or torn", "lodestream doctor --repair puts it aside; the flow does it again"),
    "L202": Code("checkpoint is damaged", "lodestream doctor --repair deletes it: reads already go by the commits"),
    "L203": Code("_last_checkpoint names no checkpoint", "lodestream doctor --repair deletes it: it is only a hint"),
    "L204": Code("log cannot be read", "restore the log from a copy, or begin the table again as the message says"),
    "L205": Code(
        "table uses features that cannot be read",
        "take them away with the engine that added them: ALTER TABLE … DROP FEATURE …, in Spark",
    ),
    "L206": Code("log names a file outside its table", "the log was changed by an attacker or by hand: restore a copy"),
    "L301": Code("data files are missing or damaged", "lodestream doctor --repair fills it again from its input"),
    "L302": Code("files that no version knows", "harmless; a vacuum deletes them"),
    "L401": Code("plans, state and table do not fit together", "begin the table again as the message says"),
    "L402": Code("a batch is planned and not committed", "the next run goes on with it"),
    "L501": Code("lake is not written", "end the restore, activate the replica, or go to the lake that took over"),
    "L502": Code("lake is being copied", "nothing: upkeep leaves what the copy needs until it ends, or has died"),
    # notes, which refuse nothing
    "N102": Code("a sink does less than its reader may expect", "see that readers of the sink cope with it"),
    "N103": Code("policy without effect", "correct the name, or remove it"),
    "N104": Code(
        "a computed column shows what a mask hides", "mask it too, or tag the masked column: tags are inherited"
    ),
    "N105": Code("gold reads bronze", "read the silver table, or write skip_silver: true when it is meant so"),
    "N106": Code("not carried to Databricks as it is", "see that what the message says is done there"),
    "N101": Code("will not run on Spark", "keep engine: embedded, or use portable functions only"),
    # plans
    "P201": Code("emit: final without event_time", "add event_time: {column, delay}, or use emit: updates"),
    "P202": Code("dedup without event_time", "add event_time: {column, delay}, or the state would grow for ever"),
    "P206": Code("a shared source keeps no state", "move event_time and dedup to the silver table, or take share out"),
    "P207": Code(
        "event time is not what orders the changes",
        "let event_time name the first column of sequence_by, or remove it: deletions are then remembered for ever",
    ),
    "P205": Code("needs Spark", "run it with `lodestream run --engine spark`, or use what the embedded engine has"),
    "P210": Code("does not run on Spark", "run this table on the embedded engine, or do what the message says"),
}


CODES |= {code: Code(text, text) for code, text in EXPRESSION_CODES.items() if code not in CODES}


def remedy(code: str) -> str:
    """What to do about a code; empty for one that is not ours."""
    return CODES[code].remedy if code in CODES else ""
