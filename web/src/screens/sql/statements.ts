/** Which statement of a text is meant: the one the cursor stands in. */

export interface Statement {
  from: number;
  to: number;
  text: string;
}

const SKIPPED = /'(?:[^']|'')*(?:'|$)|"(?:[^"]|"")*(?:"|$)|--[^\n]*|\/\*[\s\S]*?(?:\*\/|$)|\$([A-Za-z_]\w*)?\$[\s\S]*?(?:\$\1\$|$)|;/g;

/** The statements of a text, cut at semicolons that stand outside quotes and comments; blank ones are left out. */
export function statements(text: string): Statement[] {
  const found: Statement[] = [];
  let start = 0;
  const add = (end: number): void => {
    const piece = text.slice(start, end);
    const trimmed = piece.trim();
    if (trimmed !== "") {
      const from = start + piece.indexOf(trimmed);
      found.push({ from, to: from + trimmed.length, text: trimmed });
    }
    start = end + 1;
  };
  for (const match of text.matchAll(SKIPPED)) if (match[0] === ";") add(match.index);
  add(text.length);
  return found;
}

/** The statement at a place; the one before it when the place is between two. */
export function statementAt(text: string, place: number): Statement | null {
  const all = statements(text);
  return all.find((one) => place >= one.from && place <= one.to + 1) ?? all.findLast((one) => one.to < place) ?? all[0] ?? null;
}
