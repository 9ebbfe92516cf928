/** The text of a text panel: paragraphs, lists and bold words, as values that are drawn as text. */

export interface Word {
  text: string;
  bold: boolean;
}

export type Block = { kind: "paragraph"; words: Word[] } | { kind: "list"; items: Word[][] };

export function words(text: string): Word[] {
  return text
    .split(/\*\*(.+?)\*\*/)
    .map((part, index) => ({ text: part, bold: index % 2 === 1 }))
    .filter((word) => word.text !== "");
}

export function blocks(text: string): Block[] {
  return text
    .split(/\n\s*\n/)
    .map((part) => part.trim())
    .filter((part) => part !== "")
    .map((part) => {
      const lines = part.split("\n").map((line) => line.trim());
      return lines.every((line) => line.startsWith("- "))
        ? { kind: "list", items: lines.map((line) => words(line.slice(2))) }
        : { kind: "paragraph", words: words(lines.join(" ")) };
    });
}
