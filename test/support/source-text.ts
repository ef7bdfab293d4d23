/** Just enough reading of TypeScript for the tidy test: what is code, and what a file imports. No compiler is needed for that. */

/** What a module statement names, and how. */
export interface ModuleReference {
  /** As written: `./x.ts`, `node:fs`, `hono`. */
  specifier: string;
  kind: 'import' | 'export' | 'dynamic' | 'worker';
  /** It names nothing but types: the compiler removes it. */
  isTypeOnly: boolean;
  line: number;
}

/** Characters after which a `/` begins a regular expression and not a division. */
const BEFORE_REGEX =
  /[(,=:[!&|?{};+\-*%~^<>\n]$|(?:^|[^\w$.])(?:return|typeof|case|in|of|delete|void|throw|new|else|do)$/;

/**
 * `source` with comments blanked out and, unless `keepStrings`, the contents of strings, templates (not what is in `${}`) and
 * regular expressions as well. Line breaks and positions stay.
 */
export function codeOnly(source: string, keepStrings = false): string {
  const out = source.split('');
  const blank = (from: number, to: number): void => {
    for (let i = from; i < to; i++) if (out[i] !== '\n') out[i] = ' ';
  };
  /** For every template that is open: how many braces are open inside its current `${`. */
  const templates: number[] = [];
  let at = 0;
  const readTemplate = (from: number): void => {
    let end = from;
    while (end < source.length && source[end] !== '`' && !source.startsWith('${', end))
      end += source[end] === '\\' ? 2 : 1;
    if (!keepStrings) blank(from, Math.min(end, source.length));
    if (source[end] === '$') {
      templates.push(0);
      at = end + 2;
    } else at = end + 1;
  };
  while (at < source.length) {
    const character = source[at]!;
    if (source.startsWith('//', at)) {
      const end = indexOrEnd(source, '\n', at);
      blank(at, end);
      at = end;
    } else if (source.startsWith('/*', at)) {
      const end = Math.min(indexOrEnd(source, '*/', at + 2) + 2, source.length);
      blank(at, end);
      at = end;
    } else if (character === "'" || character === '"') {
      let end = at + 1;
      while (end < source.length && source[end] !== character && source[end] !== '\n')
        end += source[end] === '\\' ? 2 : 1;
      if (!keepStrings) blank(at + 1, Math.min(end, source.length));
      at = end + 1;
    } else if (character === '`') {
      readTemplate(at + 1);
    } else if (character === '/' && BEFORE_REGEX.test(lastCode(out, at))) {
      const end = regexEnd(source, at);
      if (!keepStrings) blank(at + 1, end);
      at = end + 1;
    } else {
      if (templates.length > 0) {
        if (character === '{') templates[templates.length - 1]!++;
        if (character === '}' && templates[templates.length - 1]!-- === 0) {
          templates.pop();
          readTemplate(at + 1);
          continue;
        }
      }
      at++;
    }
  }
  return out.join('');
}

/** Every module that `source` names. */
export function moduleReferences(source: string): ModuleReference[] {
  const withStrings = codeOnly(source, true);
  const code = codeOnly(source);
  const references: ModuleReference[] = [];
  const collect = (pattern: RegExp, kind: ModuleReference['kind']): void => {
    for (const match of withStrings.matchAll(pattern)) {
      // Inside a string or template the word itself is blank in `code`.
      if (code[match.index + match[0].search(/\S/)] === ' ') continue;
      const line = withStrings.slice(0, match.index + match[0].length).split('\n').length;
      references.push({ specifier: match[1]!, kind, isTypeOnly: isTypeOnly(match[0]), line });
    }
  };
  collect(/(?<![\w$.])import\s+(?:[\w$*{][^'"`;=]*?\sfrom\s*)?['"]([^'"\n]+)['"]/g, 'import');
  collect(/(?<![\w$.])export\s+(?:type\s+)?[*{][^'"`;=]*?\sfrom\s*['"]([^'"\n]+)['"]/g, 'export');
  collect(/(?<![\w$.])import\s*\(\s*['"]([^'"\n]+)['"]/g, 'dynamic');
  // Other files than TypeScript that are named like this are data.
  collect(/new\s+URL\(\s*['"](\.{1,2}\/[^'"\n]+\.ts)['"]\s*,\s*import\.meta\.url/g, 'worker');
  return references;
}

/** Whether a statement begins with `import type`, or every name in its braces is marked as a type. */
function isTypeOnly(statement: string): boolean {
  if (/^\s*(?:import|export)\s+type\s/.test(statement)) return true;
  const names = /^\s*(?:import|export)\s*\{([^}]*)\}/.exec(statement)?.[1]?.split(',');
  const written = names?.map((name) => name.trim()).filter((name) => name !== '') ?? [];
  return written.length > 0 && written.every((name) => name.startsWith('type '));
}

/** The part of the code before `at` that decides what a `/` is. */
function lastCode(out: readonly string[], at: number): string {
  let end = at;
  while (end > 0 && (out[end - 1] === ' ' || out[end - 1] === '\t')) end--;
  let begin = end;
  while (begin > 0 && end - begin < 16 && out[begin - 1] !== '\n') begin--;
  return begin === end ? '\n' : out.slice(begin, end).join('');
}

function regexEnd(source: string, at: number): number {
  let inClass = false;
  for (let end = at + 1; end < source.length && source[end] !== '\n'; end++) {
    if (source[end] === '\\') end++;
    else if (source[end] === '[') inClass = true;
    else if (source[end] === ']') inClass = false;
    else if (source[end] === '/' && !inClass) return end;
  }
  return at;
}

function indexOrEnd(source: string, what: string, from: number): number {
  const index = source.indexOf(what, from);
  return index < 0 ? source.length : index;
}
