import { expect, test } from "vitest";

import { blocks } from "./text";

test("paragraphs, lists and bold words; markup is text", () => {
  expect(blocks("Every **flight**\nout.\n\n- <b>one</b>\n- two\n")).toEqual([
    { kind: "paragraph", words: [{ text: "Every ", bold: false }, { text: "flight", bold: true }, { text: " out.", bold: false }] },
    { kind: "list", items: [[{ text: "<b>one</b>", bold: false }], [{ text: "two", bold: false }]] },
  ]);
  expect(blocks(" \n ")).toEqual([]);
});
