/** The build replaces such an import by the text of the shell script. */
declare module '*.sh' {
  const text: string;
  export = text;
}
